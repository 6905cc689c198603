package example;

import codesous.gateway.v1.InvocationServiceGrpc;
import codesous.gateway.v1.InvocationServiceOuterClass.InvokeRequest;
import com.google.protobuf.ByteString;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;

/** Invokes a function over gRPC: Client TENANT NAMESPACE/FUNCTION@REF EVENT_JSON. */
public final class Client {
  public static void main(String[] args) throws Exception {
    var name = args[1].split("@")[0].split("/");
    var ref = args[1].split("@")[1];
    var headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + System.getenv("CS_CLIENT_TOKEN"));
    var channel = ManagedChannelBuilder.forTarget(System.getenv("CS_URL_HOST")).usePlaintext().build();
    try {
      var answer =
          InvocationServiceGrpc.newBlockingStub(channel)
              .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
              .withDeadlineAfter(35, TimeUnit.SECONDS)
              .invoke(
                  InvokeRequest.newBuilder()
                      .setTenant(args[0])
                      .setNamespace(name[0])
                      .setFunction(name[1])
                      .setRef(ref)
                      .setEventJson(ByteString.copyFromUtf8(args[2]))
                      .build());
      var activation = answer.getActivation();
      System.out.println(activation.getStatus() + " " + activation.getResponse().getBody());
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}
