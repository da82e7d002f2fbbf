// assay witness: a small server that cosigns checkpoints of logs it knows, and never a fork.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "streams/http_server.h"
#include "streams/witness.h"
#include "tools/commands.h"
#include "tools/open_log.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string name, dir, listen = "127.0.0.1:8051";
  std::vector<std::string> logs;
};

volatile std::sig_atomic_t stopping = 0;

Result<int> serve(Context& context, const Flags& flags) {
  streams::WitnessOptions options;
  options.dir = flags.dir.empty() ? (std::filesystem::path(context.settings.data_dir) / "witness").string() : flags.dir;
  for (const std::string& text : flags.logs) {
    Result<streams::NoteKey> key = streams::NoteKey::parse(text);
    if (!key) return Error{Errc::kUsage, "--log: " + key.error().message};
    if (key->type != streams::NoteKeyType::kLog)
      return Error{Errc::kUsage, "--log " + text + ": a log's key is of type 1 (Ed25519)"};
    options.logs.push_back(std::move(key).value());
  }
  std::error_code ignored;
  std::filesystem::create_directories(options.dir, ignored);  // what fails shows when the key is opened
  const std::string key_file = (std::filesystem::path(options.dir) / "witness.key").string();
  TRY_ASSIGN(auto signer, streams::open_note_signer({key_file, flags.name, streams::NoteKeyType::kCosignature, true}));
  TRY_ASSIGN(std::shared_ptr<streams::Witness> witness, streams::Witness::open(std::move(options), std::move(signer)));

  streams::HttpOptions http;
  http.tcp_address = flags.listen;
  TRY_ASSIGN(auto server, streams::HttpServer::open(std::move(http)));
  server->route("POST", "/add-checkpoint", [witness](const streams::HttpRequest& request) {
    streams::WitnessAnswer answer = witness->add_checkpoint(request.body, wall_now().value / 1000);
    return streams::HttpResponse{answer.status, answer.content_type, answer.body, {}};
  });
  std::signal(SIGTERM, [](int) { stopping = 1; });
  std::signal(SIGINT, [](int) { stopping = 1; });
  server->start();
  Json row = Json::object().set("key", witness->key().to_text()).set("port", int64_t{server->port()});
  context.out << render_object(row, context.format) << std::flush;
  while (stopping == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server->stop();
  return 0;
}

}  // namespace

void register_witness(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command command =
      root.command("witness", "Cosign the checkpoints of logs, each a continuation of the one before (C2SP tlog-witness)");
  command.example("assay --data-dir /var/lib/witness witness --name example.org/w1 --log assay.local/audit+…+…")
      .option("--name", flags->name, "Name of this witness, a URL without its scheme")
      .required()
      .option("--log", flags->logs, "Key of a log to witness, as `assay audit checkpoint` prints it; may be given often")
      .option("--dir", flags->dir, "Its key and what it cosigned last (DIR/witness)")
      .option("--listen", flags->listen, "HOST:PORT (127.0.0.1:8051); port 0: a free one");
  command.unguarded();
  command.run([flags](Context& context) { return serve(context, *flags); });
}

}  // namespace assay::tools
