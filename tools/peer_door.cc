#include "tools/peer_door.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "schemas/hash.h"
#include "schemas/json_parse.h"
#include "streams/archive_files.h"
#include "streams/peers.h"

namespace assay::tools {
namespace {

constexpr const char* kFile = "process.json";

std::string new_name() {
  std::random_device random;
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(random()));
  return "assay-" + to_hex(bytes);
}

std::string host_of(const std::string& address) { return address.substr(0, address.rfind(':')); }
std::string port_of(const std::string& address) { return address.substr(address.rfind(':') + 1); }

}  // namespace

Result<std::unique_ptr<PeerDoor>> PeerDoor::open(const Settings& settings) {
  auto door = std::make_unique<PeerDoor>();
  std::ifstream file(std::filesystem::path(settings.data_dir) / kFile, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  auto known = parse_json(text);  // a file that cannot be read is one that is not there
  const std::string before = known ? std::string(known->string_or("bound", "")) : "";
  const std::string& listen = settings.peers.listen;
  std::string bound;
  if (!settings.kafka.brokers.empty() && !listen.empty()) {
    streams::HttpOptions options;
    auto open_at = [&](const std::string& address) {
      options.tcp_address = address;
      return streams::HttpServer::open(options);
    };
    Result<std::unique_ptr<streams::HttpServer>> server = Error{Errc::kRefused, "no port is known"};
    if (port_of(listen) == "0" && !before.empty() && host_of(before) == host_of(listen)) server = open_at(before);
    if (!server) server = open_at(listen);
    if (!server) return server.error();
    door->server_ = std::move(*server);
    bound = host_of(listen) + ":" + std::to_string(door->server_->port());
    door->address_ = settings.peers.advertise.empty()           ? bound
                     : port_of(settings.peers.advertise) == "0" ? host_of(settings.peers.advertise) + ":" + port_of(bound)
                                                                : settings.peers.advertise;
  }
  const bool same = known && known->string_or("address", "?") == door->address_;
  door->instance_id_ = same ? std::string(known->string_or("instance", "")) : "";
  if (door->instance_id_.empty()) door->instance_id_ = new_name();
  door->client_id_ = streams::peer_client_id(door->address_);
  const Json document = Json::object().set("instance", door->instance_id_).set("address", door->address_).set("bound", bound);
  TRY(streams::replace_file(settings.data_dir, kFile, canonical(document) + "\n", false));
  return door;
}

}  // namespace assay::tools
