// Two memories in, a search, a chat, and an error with its reason. Settings by environment: see README.md.

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "ndml/v1/chat.grpc.pb.h"
#include "ndml/v1/memory.grpc.pb.h"

namespace v1 = ndml::v1;

// A stream lasts as long as the answer: it gets so many times the deadline of a call.
constexpr int kStreamDeadlines = 6;

// A failed call taken apart.
class NdmlError : public std::runtime_error {
 public:
  explicit NdmlError(const grpc::Status& status) : std::runtime_error(status.error_message()), code(status.error_code()) {
    google::rpc::Status details;
    if (!details.ParseFromString(status.error_details())) return;
    for (const auto& detail : details.details()) {
      google::rpc::ErrorInfo info;
      if (detail.UnpackTo(&info)) reason = info.reason();
      detail.UnpackTo(&broken);
    }
  }

  grpc::StatusCode code;
  std::string reason;              // As in ndml/v1/errors.proto; empty where gRPC itself failed.
  google::rpc::BadRequest broken;  // Fields that break their rule.
};

void Check(const grpc::Status& status) {
  if (!status.ok()) throw NdmlError(status);
}

std::string Setting(const char* name, const std::string& otherwise = "") {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const std::string& authorities) {
  if (authorities.empty()) return grpc::InsecureChannelCredentials();
  std::ifstream file(authorities);
  if (!file) throw std::runtime_error("NDML_CA: no file to read at " + authorities + "; it is a PEM file of the authorities to trust");
  std::ostringstream pem;
  pem << file.rdbuf();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = pem.str();
  return grpc::SslCredentials(options);
}

class Client {
 public:
  Client(const std::shared_ptr<grpc::Channel>& channel, const std::string& user, std::string token, double timeout_s)
      : memory_(v1::MemoryService::NewStub(channel)), chat_(v1::ChatService::NewStub(channel)), token_(std::move(token)), timeout_s_(timeout_s) {
    scope_.set_user(user);
  }

  // Stores a memory; the same request_id writes once.
  v1::AddMemoryResponse Add(const std::string& request_id, const std::string& text) {
    v1::AddMemoryRequest request;
    request.set_request_id(request_id);
    *request.mutable_memory()->mutable_scope() = scope_;
    request.mutable_memory()->set_text(text);
    v1::AddMemoryResponse response;
    grpc::ClientContext context;
    Prepare(context, 1);
    Check(memory_->AddMemory(&context, request, &response));
    return response;
  }

  // With a write's token the search sees that write, whichever copy answers.
  v1::SearchMemoriesResponse Search(const std::string& text, int k, const std::string& token) {
    v1::SearchMemoriesRequest request;
    *request.mutable_scope() = scope_;
    request.set_text(text);
    request.set_k(k);
    request.set_consistency_token(token);
    v1::SearchMemoriesResponse response;
    grpc::ClientContext context;
    Prepare(context, 1);
    Check(memory_->SearchMemories(&context, request, &response));
    return response;
  }

  // Prints the answer as it comes, and what it cites.
  void Ask(const std::string& question) {
    v1::ChatRequest request;
    *request.mutable_scope() = scope_;
    auto* message = request.add_messages();
    message->set_role(v1::ROLE_USER);
    message->set_content(question);
    grpc::ClientContext context;
    Prepare(context, kStreamDeadlines);
    const auto answer = chat_->Chat(&context, request);
    v1::ChatResponse part;
    google::protobuf::RepeatedPtrField<v1::Citation> cited;
    std::cout << "chat: ";
    while (answer->Read(&part)) {
      std::cout << part.delta() << std::flush;
      cited.MergeFrom(part.citations());
    }
    std::cout << std::endl;
    Check(answer->Finish());
    for (const auto& citation : cited) std::cout << "cited [" << citation.number() << "] " << citation.text() << '\n';
  }

 private:
  void Prepare(grpc::ClientContext& context, int deadlines) const {
    const auto wait = std::chrono::duration<double>(deadlines * timeout_s_);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::microseconds>(wait));
    if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  }

  std::unique_ptr<v1::MemoryService::Stub> memory_;
  std::unique_ptr<v1::ChatService::Stub> chat_;
  v1::Scope scope_;
  std::string token_;
  double timeout_s_;
};

void Converse(Client& client) {
  std::cout << std::fixed << std::setprecision(3);
  const auto home = client.Add("lisbon", "I live in Lisbon.");
  std::cout << "added " << home.trace_id() << '\n';
  const auto dog = client.Add("pixel", "My dog Pixel hates the vacuum cleaner.");
  std::cout << "added " << dog.trace_id() << '\n';
  const auto found = client.Search("Where do I live?", 2, dog.consistency_token());
  for (const auto& hit : found.hits()) std::cout << hit.score() << ' ' << hit.trace().text() << '\n';
  client.Ask("Where do I live?");
  try {
    client.Search("x", -1, "");
  } catch (const NdmlError& error) {
    for (const auto& field : error.broken.field_violations())
      std::cout << "refused: " << error.code << ' ' << error.reason << ' ' << field.field() << ": " << field.description() << '\n';
  }
}

int main() {
  try {
    const auto channel = grpc::CreateChannel(Setting("NDML_ADDRESS", "127.0.0.1:7700"), Credentials(Setting("NDML_CA")));
    Client client(channel, Setting("NDML_USER", "ann"), Setting("NDML_TOKEN"), std::stod(Setting("NDML_TIMEOUT_S", "10")));
    Converse(client);
  } catch (const NdmlError& error) {
    std::cerr << "error: " << error.code << ' ' << error.reason << ' ' << error.what() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
