// Invokes a function over gRPC: CS_URL_HOST=127.0.0.1:8080 CS_CLIENT_TOKEN=... go run . t_demo01 default/hello@live '{"name":"Ada"}'
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	gatewayv1 "example.com/code-sous-client/gen/codesous/gateway/v1"
)

// reason is what docs/reference/errors.md lists, for example CS_NOT_FOUND_FUNCTION.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return status.Code(err).String()
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: client TENANT NAMESPACE/FUNCTION@REF EVENT_JSON")
	}
	name, ref, _ := strings.Cut(os.Args[2], "@")
	namespace, function, _ := strings.Cut(name, "/")
	connection, err := grpc.NewClient(os.Getenv("CS_URL_HOST"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 35*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("CS_CLIENT_TOKEN"))
	answer, err := gatewayv1.NewInvocationServiceClient(connection).Invoke(ctx, &gatewayv1.InvokeRequest{
		Tenant:    os.Args[1],
		Namespace: namespace,
		Function:  function,
		Ref:       ref,
		Input:     &gatewayv1.InvokeRequest_EventJson{EventJson: []byte(os.Args[3])},
	})
	if err != nil {
		log.Fatal(reason(err), " ", status.Convert(err).Message())
	}
	fmt.Println(answer.Activation.Status, answer.Activation.Response.GetBody())
}
