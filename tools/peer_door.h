// This process among the others of its groups: the name it keeps over restarts, and the door at which they ask for its tasks.
#pragma once

#include <memory>
#include <string>

#include "streams/http_server.h"
#include "tools/settings.h"

namespace assay::tools {

class PeerDoor {
 public:
  /// Binds the door that the settings ask for (none on the embedded log); DIR/process.json remembers name and address.
  /// Errors: kRefused (the port is taken by another), those of the directory.
  static Result<std::unique_ptr<PeerDoor>> open(const Settings& settings);

  /// By which the groups' coordinator, and through it the others, find this process.
  const std::string& client_id() const { return client_id_; }
  /// Of a static member. It goes with the address: a coordinator keeps the client id that came with a name first.
  const std::string& instance_id() const { return instance_id_; }
  /// Where others ask; empty: nowhere.
  const std::string& address() const { return address_; }
  /// Not started; nothing without a door.
  streams::HttpServer* server() { return server_.get(); }

 private:
  std::string client_id_, instance_id_, address_;
  std::unique_ptr<streams::HttpServer> server_;
};

}  // namespace assay::tools
