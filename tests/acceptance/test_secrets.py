"""A secret, from the command line to the function that reads it, and nowhere else."""

from __future__ import annotations

from tests.acceptance.conftest import TENANT, Mesh

SOURCE = """
export default async function handle() {
  const token = await cs.secrets.get("token");
  console.log("the token is", token);
  return { statusCode: 200, body: String(token.length) };
}
"""


def test_a_secret_is_set_read_by_a_function_hidden_in_its_log_and_deleted(mesh: Mesh) -> None:
    assert mesh.cs("secret", "set", "token", stdin="hunter2-is-long\n").json["secret"] == "token"
    manifest = {
        "runtime": "cs-js",
        "capabilities": {"secrets": ["token"]},
        "config": {"invokeHttpRoles": ["admin"]},
    }
    mesh.deploy_bundle("secretive", SOURCE, manifest)
    activation = mesh.cs("fn", "invoke", "secretive@live").json
    assert activation["response"]["body"] == str(len("hunter2-is-long"))
    logged = mesh.cs("fn", "logs", activation["activation_id"]).out
    assert "the token is" in logged
    assert "hunter2" not in logged

    (listed,) = mesh.cs("secret", "list").json["secrets"]
    assert (listed["secret"], listed["namespace"]) == ("token", "default")
    assert "hunter2" not in mesh.cs("audit", "log").out
    path = f"/v1/tenants/{TENANT}/namespaces/default/secrets"
    assert mesh.rest("GET", path, token=mesh.token(TENANT, "developer")).status_code == 403
    assert mesh.rest("PUT", f"{path}/token", json={"value": "again"}).json()["secret"]["secret"] == "token"
    assert mesh.cs("fn", "invoke", "secretive@live").json["response"]["body"] == str(len("again"))

    assert mesh.cs("secret", "delete", "token").json["deleted"] is True
    gone = mesh.cs("fn", "invoke", "secretive@live").json
    assert (gone["status"], gone["error"]["reason"]) == ("error", "CS_NOT_FOUND_SECRET")
    assert mesh.cs("secret", "delete", "token", expect=1).error["reason"] == "CS_NOT_FOUND_SECRET"
