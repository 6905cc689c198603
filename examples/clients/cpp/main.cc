// Invokes a function over gRPC: CS_URL_HOST=127.0.0.1:8080 CS_CLIENT_TOKEN=... ./client t_demo01 default hello live '{}'
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "codesous/gateway/v1/invocation_service.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gateway = codesous::gateway::v1;

// What docs/reference/errors.md lists, for example CS_NOT_FOUND_FUNCTION.
std::string Reason(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& detail : details.details()) {
      if (detail.UnpackTo(&info)) return info.reason();
    }
  }
  return std::to_string(status.error_code());
}

int main(int argc, char** argv) {
  const char* host = std::getenv("CS_URL_HOST");
  const char* token = std::getenv("CS_CLIENT_TOKEN");
  if (argc != 6 || host == nullptr || token == nullptr) {
    std::cerr << "usage: client TENANT NAMESPACE FUNCTION REF EVENT_JSON\n";
    return 2;
  }
  auto stub =
      gateway::InvocationService::NewStub(grpc::CreateChannel(host, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(35));
  context.AddMetadata("authorization", std::string("Bearer ") + token);
  gateway::InvokeRequest request;
  request.set_tenant(argv[1]);
  request.set_namespace_(argv[2]);
  request.set_function(argv[3]);
  request.set_ref(argv[4]);
  request.set_event_json(argv[5]);
  gateway::InvokeResponse answer;
  const grpc::Status status = stub->Invoke(&context, request, &answer);
  if (!status.ok()) {
    std::cerr << Reason(status) << " " << status.error_message() << "\n";
    return 1;
  }
  const auto& activation = answer.activation();
  std::cout << codesous::type::v1::ActivationStatus_Name(activation.status()) << " " << activation.response().body()
            << "\n";
  return 0;
}
