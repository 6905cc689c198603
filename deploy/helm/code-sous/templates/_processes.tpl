{{/* The processes: command, section of the settings, ports. One list, so that no template forgets one. */}}
{{- define "code-sous.processes" -}}
control: {command: cs-control, section: CONTROL, port: 7001, metrics: 9101}
gateway: {command: cs-http-gateway, section: GATEWAY, port: 7002, metrics: 9102}
scheduler: {command: cs-scheduler, section: SCHEDULER, port: 7003, metrics: 9103}
{{- if .Values.cadence.target }}
poller: {command: cs-cadence-poller, section: POLLER, port: 7004, metrics: 9104}
{{- end }}
invoker: {command: cs-invoker-pool, section: INVOKER, port: 7005, metrics: 9105}
{{- end }}

{{- define "code-sous.labels" -}}
app.kubernetes.io/name: code-sous
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "code-sous.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "code-sous.pod" -}}
# Without this, the names of Services become variables that begin with CS_, which the services refuse.
enableServiceLinks: false
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "code-sous.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
