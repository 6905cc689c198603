package example;

import codesous.gateway.v1.InvocationServiceGrpc;
import codesous.gateway.v1.InvocationServiceOuterClass.InvokeRequest;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.ErrorInfo;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Invokes a function over gRPC: Client TENANT NAMESPACE/FUNCTION@REF EVENT_JSON. */
public final class Client {
  /** What docs/reference/errors.md lists, for example CS_NOT_FOUND_FUNCTION. */
  private static String reason(StatusRuntimeException error) throws Exception {
    var status = StatusProto.fromThrowable(error);
    for (var detail : status == null ? List.<Any>of() : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        return detail.unpack(ErrorInfo.class).getReason();
      }
    }
    return error.getStatus().getCode().name();
  }

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
    } catch (StatusRuntimeException error) {
      System.err.println(reason(error) + " " + error.getStatus().getDescription());
      System.exit(1);
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}
