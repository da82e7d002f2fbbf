#include "streams/audit_archive.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <utility>

#include "processors/merkle_proof.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/archive_files.h"
#include "streams/audit_batch.h"
#include "streams/audit_row_view.h"
#include "streams/gzip.h"
#include "streams/id_index.h"
#include "streams/tile_tree.h"

namespace assay::streams {
namespace {

using processors::ChainState;

constexpr std::string_view kFormat = "assay-audit-archive/1";
constexpr std::string_view kManifestName = "manifest.json";
constexpr std::string_view kSignersName = "signers.json";
constexpr std::string_view kRowsFolder = "audit-events";
constexpr std::string_view kIndexFolder = "ids";
constexpr std::string_view kStagedHeadName = "head.json";
constexpr size_t kLinesPerBlock = 512;

Error bad_manifest(std::string_view what) { return {Errc::kCorrupt, "reading a manifest: " + std::string(what)}; }

/// "audit-events/2026/05/01/" of an instant.
std::string folder_of(int64_t created_at_us) {
  std::string day = format_rfc3339_us(created_at_us).substr(0, 10);
  std::ranges::replace(day, '-', '/');
  return std::string(kRowsFolder) + "/" + day + "/";
}

std::string file_name(const std::string& folder, int64_t first, int64_t last) {
  char text[64];
  std::snprintf(text, sizeof text, "%012lld-%012lld.jsonl.gz", static_cast<long long>(first), static_cast<long long>(last));
  return folder + text;
}

std::string folder_part(const std::string& name) { return name.substr(0, name.rfind('/') + 1); }

std::string staging_of(std::string dir) {
  while (dir.size() > 1 && dir.ends_with('/')) dir.pop_back();
  return dir + "-staging";
}

/// What a staging directory says of the chain; nothing: no row waits there. Errors: kCorrupt.
Result<std::optional<ChainState>> read_staged_head(const std::string& dir) {
  Result<MappedFile> file = MappedFile::open(staging_of(dir) + "/" + std::string(kStagedHeadName));
  if (!file && file.error().code == Errc::kNotFound) return std::optional<ChainState>();
  if (!file) return file.error();
  TRY_ASSIGN(Json document, parse_json(file->bytes()));
  TRY_ASSIGN(ChainState state, processors::chain_state_from_json(document));
  return std::optional(std::move(state));
}

/// Rows on their way into one file.
struct Chunk {
  std::string folder;
  int64_t first_sequence = 0;
  int64_t rows = 0;
  std::string text;  // lines
  std::string first_hash, last_hash;
};

/// Cuts rows into files: by day of created_at, by count, by size.
class Cutter {
 public:
  explicit Cutter(const ArchiveOptions& options) : options_(options) {}

  void add(int64_t created_at_us, int64_t sequence, std::string hash, std::string_view line) {
    const int64_t day = floor_to(created_at_us, kDayMs * 1000);
    if (chunks.empty() || day != day_ || chunks.back().rows >= options_.file_rows_max ||
        std::ssize(chunks.back().text) + std::ssize(line) >= options_.file_raw_bytes_max) {
      if (chunks.empty() || day != day_) folder_ = folder_of(created_at_us);
      day_ = day;
      chunks.push_back({folder_, sequence, 0, {}, hash, {}});
    }
    Chunk& chunk = chunks.back();
    ++chunk.rows;
    chunk.text += line;
    chunk.text += '\n';
    chunk.last_hash = std::move(hash);
  }

  std::deque<Chunk> chunks;

 private:
  const ArchiveOptions& options_;
  int64_t day_ = 0;
  std::string folder_;
};

/// The files, manifest and registry of one directory, changed only in steps that a crash cannot tear.
class Archive {
 public:
  Archive(std::string dir, const ArchiveOptions& options) : dir_(std::move(dir)), options_(options) {}

  Result<void> step(const std::string& what) const { return options_.before_step ? options_.before_step(what) : Result<void>(); }

  /// Writes a chunk to its file. Nobody sees it before publish().
  Result<ArchiveFile> write(const Chunk& chunk) const {
    ArchiveFile file;
    file.name = file_name(chunk.folder, chunk.first_sequence, chunk.first_sequence + chunk.rows - 1);
    const std::string packed = gzip(chunk.text);
    file.first_sequence = chunk.first_sequence;
    file.rows = chunk.rows;
    file.size_bytes = std::ssize(packed);
    file.raw_size_bytes = std::ssize(chunk.text);
    file.first_hash = chunk.first_hash;
    file.last_hash = chunk.last_hash;
    file.sha256 = to_hex(as_bytes(sha256(packed)));
    TRY(step("write " + file.name));
    TRY(write_file(dir_, file.name, packed, options_.sync));
    return file;
  }

  /// Signs the manifest and puts it in the place of the old one: from here on its files count.
  Result<void> publish(ArchiveManifest& manifest, Signer& signer) const {
    manifest.signer = signer.key();
    TRY_ASSIGN(std::string signature, signer.sign(manifest.digest()));
    manifest.signature = to_base64(signature);
    TRY(step("publish"));
    return replace_file(dir_, std::string(kManifestName), manifest.to_json(), options_.sync);
  }

  Result<void> write_signers(const SignerRegistry& registry, ArchiveManifest& manifest) const {
    const std::string text = registry.to_json();
    manifest.signers_sha256 = to_hex(as_bytes(sha256(text)));
    TRY(step("signers"));
    return replace_file(dir_, std::string(kSignersName), text, options_.sync);
  }

 private:
  std::string dir_;
  const ArchiveOptions& options_;
};

class ArchiveSink : public AuditSink {
 public:
  ArchiveSink(std::string dir, std::shared_ptr<Signer> signer, ArchiveOptions options, DirectoryLock lock)
      : dir_(std::move(dir)),
        signer_(std::move(signer)),
        options_(std::move(options)),
        lock_(std::move(lock)),
        archive_(dir_, options_) {}

  std::string describe() const override { return "archive in " + dir_; }

  Result<ChainState> take_over(const SignerKey& signer) override {
    Result<ArchiveManifest> manifest = read_archive_manifest(dir_);
    if (manifest) {
      manifest_ = std::move(manifest).value();
      if (manifest_.head.next_offset.value < 0)
        return Error{Errc::kRefused,
                     "continuing the chain in " + dir_ + ": it is an export that does not know its place in the log"};
    } else if (manifest.error().code == Errc::kIncomplete) {
      TRY(refuse_rows_without_manifest());
      manifest_ = {};
    } else {
      return manifest.error();
    }
    TRY(remove_leftovers());
    TRY(note_signer(signer));
    TRY_ASSIGN(staged_, read_staged_head(dir_));
    if (staged_ && staged_->sequence <= manifest_.head.sequence) staged_.reset();  // all of them were signed
    TRY(remove_staged_rows());
    return staged_.value_or(manifest_.head);
  }

  std::optional<ChainState> signed_state() const override { return staged_ ? std::optional(manifest_.head) : std::nullopt; }

  void use_signer(std::shared_ptr<Signer> signer) override { signer_ = std::move(signer); }

  Result<void> append(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    CHECK(!staged_);
    return extend(rows, before, after);
  }

  Result<void> stage(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    if (staged_ == after) return {};  // stored when it was called before
    if (rows.empty() && !staged_) return extend(rows, before, after);
    CHECK(staged_.value_or(manifest_.head) == before);
    std::string text;
    for (const SignedRow& row : rows) text += audit_line(row) + '\n';
    if (!rows.empty())
      TRY(write_file(staging_of(dir_), staged_name(rows.front().row.sequence, rows.back().row.sequence), text, options_.sync));
    TRY(archive_.step("stage"));
    TRY(replace_file(staging_of(dir_), std::string(kStagedHeadName), canonical(processors::chain_state_to_json(after)) + "\n",
                     options_.sync));
    staged_ = after;
    return {};
  }

  Result<void> sign(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    const bool last = staged_ && after.sequence == staged_->sequence;
    if (manifest_.head.sequence < after.sequence) TRY(extend(rows, before, last ? *staged_ : after));
    if (last) staged_.reset();
    return remove_staged_rows();
  }

 private:
  /// Puts signed rows behind those that are there.
  Result<void> extend(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) {
    if (manifest_.head == after) return {};  // stored when it was called before
    CHECK(manifest_.head == before);
    Cutter cutter(options_);
    for (const SignedRow& row : rows)
      cutter.add(row.row.created_at_us, row.row.sequence, to_hex(as_bytes(row.row.hash)), audit_line(row));

    ArchiveManifest next = manifest_;
    std::vector<std::string> merged;
    if (!cutter.chunks.empty()) TRY(merge_small_files(cutter.chunks.front(), next, merged));
    for (const Chunk& chunk : cutter.chunks) {
      TRY_ASSIGN(ArchiveFile file, archive_.write(chunk));
      next.files.push_back(std::move(file));
    }
    next.head = after;
    if (after.control.keys != manifest_.head.control.keys || registry_.find(signer_->key().signer_id) == nullptr) {
      if (registry_.find(signer_->key().signer_id) == nullptr && !after.control.keys.contains(signer_->key().signer_id))
        TRY(registry_.add({signer_->key(), {}, {}, false}));
      TRY(publish_with_registry(next, after.control));
    } else {
      TRY(archive_.publish(next, *signer_));
    }
    manifest_ = std::move(next);
    for (const std::string& name : merged) {
      TRY(archive_.step("remove " + name));
      (void)remove_file(dir_, name);  // what stays is a leftover, removed at the next start
    }
    return {};
  }

  static std::string staged_name(int64_t first, int64_t last) {
    std::string name = file_name("", first, last);
    return name.substr(0, name.size() - 3);  // plain text: a person may want to look
  }

  /// Removes staged files whose rows have all been signed, and what a crash left behind.
  Result<void> remove_staged_rows() const {
    const std::string dir = staging_of(dir_);
    Result<std::vector<std::string>> names = list_files(dir);
    if (!names) return names.error().code == Errc::kNotFound ? Result<void>() : names.error();
    for (const std::string& name : *names) {
      if (name == kStagedHeadName || name.starts_with(kSignersName)) continue;
      const size_t dash = name.find('-');
      const int64_t last = dash == name.npos ? 0 : std::strtoll(name.c_str() + dash + 1, nullptr, 10);
      const int64_t first = std::strtoll(name.c_str(), nullptr, 10);
      if (!staged_ || last <= manifest_.head.sequence || first > staged_->sequence) TRY(remove_file(dir, name));
    }
    return staged_ ? Result<void>() : remove_file(dir, std::string(kStagedHeadName));
  }

  /// Takes the files before the chunk into it while they are no larger than it: each row is rewritten a few times at most,
  /// and a day ends up with few files, whatever the size of the batches.
  Result<void> merge_small_files(Chunk& chunk, ArchiveManifest& next, std::vector<std::string>& merged) {
    while (!next.files.empty()) {
      const ArchiveFile& last = next.files.back();
      if (folder_part(last.name) != chunk.folder || last.rows > chunk.rows || last.rows + chunk.rows > options_.file_rows_max ||
          last.raw_size_bytes + std::ssize(chunk.text) > options_.file_raw_bytes_max)
        break;
      Result<MappedFile> file = MappedFile::open(dir_ + "/" + last.name);
      if (!file) return Error{Errc::kCorrupt, "merging archive files: " + file.error().message};
      if (to_hex(as_bytes(sha256(file->bytes()))) != last.sha256)
        return Error{Errc::kTampered, "merging " + dir_ + "/" + last.name + ": its SHA-256 is not the manifest's"};
      std::string text;
      TRY(gunzip(file->bytes(), [&](std::string_view part) -> Result<void> {
        text += part;
        return {};
      }));
      chunk.text.insert(0, text);
      chunk.first_sequence = last.first_sequence;
      chunk.rows += last.rows;
      chunk.first_hash = last.first_hash;
      merged.push_back(last.name);
      next.files.pop_back();
    }
    return {};
  }

  Result<void> refuse_rows_without_manifest() const {
    Result<std::vector<std::string>> rows = list_files(dir_ + "/" + std::string(kRowsFolder));
    if (!rows && rows.error().code == Errc::kNotFound) return {};
    if (!rows) return rows.error();
    if (rows->empty()) return {};
    return Error{Errc::kTampered,
                 "continuing the chain in " + dir_ + ": there are rows (" + rows->front() + ") but no manifest.json"};
  }

  Result<void> remove_leftovers() const {
    TRY_ASSIGN(std::vector<std::string> names, list_files(dir_));
    for (const std::string& name : names) {
      const bool ours = name.starts_with(std::string(kRowsFolder) + "/") || name == std::string(kManifestName) + ".tmp" ||
                        name == std::string(kSignersName) + ".tmp";
      const bool named = std::ranges::find(manifest_.files, name, &ArchiveFile::name) != manifest_.files.end();
      if (ours && !named) TRY(remove_file(dir_, name));
    }
    for (const ArchiveFile& file : manifest_.files)
      if (!std::ranges::binary_search(names, file.name))
        return Error{Errc::kIncomplete, "continuing the chain in " + dir_ + ": " + file.name + " is missing"};
    return {};
  }

  /// The text of signers.json that the manifest stands for. A crash may have left one that is ahead of it, with the one before put
  /// aside; any other difference is tampering.
  Result<std::string> registry_text() const {
    for (const std::string& dir : {dir_, staging_of(dir_)}) {
      Result<MappedFile> file = MappedFile::open(dir + "/" + std::string(kSignersName));
      if (!file && file.error().code != Errc::kNotFound) return file.error();
      if (file && to_hex(as_bytes(sha256(file->bytes()))) == manifest_.signers_sha256) return std::string(file->bytes());
    }
    return Error{Errc::kTampered, "continuing the chain in " + dir_ + ": the SHA-256 of signers.json is not the manifest's"};
  }

  /// Replaces signers.json and publishes the manifest that stands for it; until then the one before lies aside.
  Result<void> publish_with_registry(ArchiveManifest& next, const processors::AuditControl& control) {
    const std::string aside = staging_of(dir_);
    if (Result<MappedFile> file = MappedFile::open(dir_ + "/" + std::string(kSignersName));
        file && to_hex(as_bytes(sha256(file->bytes()))) == manifest_.signers_sha256)
      TRY(replace_file(aside, std::string(kSignersName), file->bytes(), options_.sync));
    TRY(archive_.write_signers(standing_registry(registry_, control), next));
    TRY(archive_.publish(next, *signer_));
    return remove_file(aside, std::string(kSignersName));
  }

  /// Sees to it that the registry has the signer, and that the manifest at hand is one this registry stands for.
  Result<void> note_signer(const SignerKey& signer) {
    registry_ = {};
    Result<MappedFile> file = MappedFile::open(dir_ + "/" + std::string(kSignersName));
    if (!file && (file.error().code != Errc::kNotFound || !manifest_.files.empty()))
      return Error{Errc::kIncomplete, "continuing the chain in " + dir_ + ": " + file.error().message};
    if (!manifest_.signature.empty()) {
      TRY_ASSIGN(std::string held, registry_text());
      TRY_ASSIGN(SignerRegistry found, SignerRegistry::parse(held));
      for (const auto& [id, entry] : found.entries()) TRY(registry_.add({entry.key, {}, {}, false}));
      if (auto fault = standing_registry(registry_, manifest_.head.control)
                           .check(manifest_.signer.signer_id, std::max<int64_t>(manifest_.head.sequence, 1), manifest_.digest(),
                                  manifest_.signature))
        return Error{Errc::kTampered, "continuing the chain in " + dir_ + ": manifest.json: " + *fault};
    } else if (file) {
      TRY_ASSIGN(registry_, SignerRegistry::parse(file->bytes()));
    }
    const SignerEntry* known = registry_.find(signer.signer_id);
    if (known == nullptr || known->key != signer) TRY(registry_.add({signer, {}, {}, false}));
    const SignerRegistry whole = standing_registry(registry_, manifest_.head.control);
    const std::string text = whole.to_json();
    if (file && file->bytes() == text && manifest_.signers_sha256 == to_hex(as_bytes(sha256(text)))) return {};
    return publish_with_registry(manifest_, manifest_.head.control);
  }

  std::string dir_;
  std::shared_ptr<Signer> signer_;
  ArchiveOptions options_;
  DirectoryLock lock_;
  Archive archive_;
  ArchiveManifest manifest_;
  std::optional<ChainState> staged_;  // where the chain stands when rows wait for their signatures
  SignerRegistry registry_;           // the keys, without what events say of them
};

/// Gives the lines of the files that a manifest names, one file in memory at a time.
class ArchiveLines {
 public:
  ArchiveLines(std::string dir, std::vector<ArchiveFile> files, int64_t after) : dir_(std::move(dir)), files_(std::move(files)) {
    while (file_ < files_.size() && files_[file_].first_sequence + files_[file_].rows <= after + 1) ++file_;
    if (file_ < files_.size()) skip_ = std::max<int64_t>(0, after + 1 - files_[file_].first_sequence);
  }

  Result<std::vector<StoredLine>> next() {
    while (taken_ == text_.size() && file_ < files_.size()) {
      TRY(load(files_[file_++].name));
      for (; skip_ > 0 && taken_ < text_.size(); --skip_, ++line_)
        taken_ = std::min(text_.find('\n', taken_), text_.size() - 1) + 1;
    }
    std::vector<StoredLine> block;
    while (block.size() < kLinesPerBlock && taken_ < text_.size()) {
      const size_t end = std::min(text_.find('\n', taken_), text_.size());
      block.push_back({text_.substr(taken_, end - taken_), name_ + ":" + std::to_string(++line_)});
      taken_ = std::min(end + 1, text_.size());
    }
    return block;
  }

 private:
  Result<void> load(const std::string& name) {
    text_.clear();
    taken_ = 0;
    name_ = name;
    line_ = 0;
    Result<MappedFile> file = MappedFile::open(dir_ + "/" + name);
    if (!file) return Error{Errc::kIncomplete, "reading an archive: " + file.error().message};
    return gunzip(file->bytes(), [&](std::string_view part) -> Result<void> {
      text_ += part;
      return {};
    });
  }

  std::string dir_;
  std::vector<ArchiveFile> files_;
  size_t file_ = 0, taken_ = 0;
  int64_t skip_ = 0;  // lines of the first file that lie before what was asked for
  std::string text_, name_;
  int64_t line_ = 0;
};

/// A whole number as our own documents hold it; anything else becomes -1, which the comparison of texts then refuses.
int64_t whole(const Json& document, std::string_view name) {
  const double value = document.number_or(name, -1);
  return value >= 0 && value <= 9007199254740992.0 ? static_cast<int64_t>(value) : -1;
}

}  // namespace

std::string archive_file_name(int64_t created_at_us, int64_t first_sequence, int64_t last_sequence) {
  return file_name(folder_of(created_at_us), first_sequence, last_sequence);
}

Json archive_file_to_json(const ArchiveFile& file) {
  Json out = Json::object();
  out.set("bytes", file.size_bytes).set("firstHash", file.first_hash).set("firstSequence", std::to_string(file.first_sequence));
  out.set("lastHash", file.last_hash).set("name", file.name).set("rawBytes", file.raw_size_bytes).set("rows", file.rows);
  out.set("sha256", file.sha256);
  return out;
}

ArchiveFile archive_file_from_json(const Json& document) {
  ArchiveFile file;
  file.name = document.string_or("name", "");
  const std::string first(document.string_or("firstSequence", ""));
  file.first_sequence = std::strtoll(first.c_str(), nullptr, 10);
  file.rows = whole(document, "rows");
  file.size_bytes = whole(document, "bytes");
  file.raw_size_bytes = whole(document, "rawBytes");
  file.first_hash = document.string_or("firstHash", "");
  file.last_hash = document.string_or("lastHash", "");
  file.sha256 = document.string_or("sha256", "");
  return file;
}

std::string ArchiveManifest::to_json(bool with_signature) const {
  Json list = Json::array();
  for (const ArchiveFile& file : files) list.push_back(archive_file_to_json(file));
  Json out = Json::object();
  if (!evidence.empty()) {
    Json beside = Json::array();
    for (const ArchiveEvidence& one : evidence) beside.push_back(Json::object().set("name", one.name).set("sha256", one.sha256));
    out.set("evidence", std::move(beside));
  }
  out.set("files", std::move(list)).set("format", kFormat).set("head", processors::chain_state_to_json(head));
  out.set("rows", std::to_string(rows()));
  out.set("firstHash", files.empty() ? Json() : Json(files.front().first_hash));
  out.set("lastHash", files.empty() ? Json() : Json(files.back().last_hash));
  out.set("signer",
          Json::object().set("signerId", signer.signer_id).set("publicKey", signer.public_key).set("algorithm", signer.algorithm));
  out.set("signers", Json::object().set("name", kSignersName).set("sha256", signers_sha256));
  if (!tree_root.empty()) out.set("treeRoot", tree_root);
  if (indexed) out.set("index", kIndexFolder);
  if (with_signature) out.set("signature", signature);
  return canonical(out) + "\n";
}

Result<ArchiveManifest> ArchiveManifest::parse(std::string_view text) {
  if (text.empty()) return bad_manifest("it is empty");
  Result<Json> document = parse_json(text);
  if (!document) return bad_manifest(document.error().message);
  if (document->string_or("format", "") != kFormat) return bad_manifest("its format is not " + std::string(kFormat));
  ArchiveManifest manifest;
  const Json *files = document->find("files"), *head = document->find("head"), *signer = document->find("signer"),
             *signers = document->find("signers");
  if (files == nullptr || !files->is_array() || head == nullptr || signer == nullptr || signers == nullptr)
    return bad_manifest("a member is missing");
  for (const Json& file : files->as_array()) manifest.files.push_back(archive_file_from_json(file));
  if (const Json* evidence = document->find("evidence"); evidence != nullptr && evidence->is_array())
    for (const Json& one : evidence->as_array())
      manifest.evidence.push_back({std::string(one.string_or("name", "")), std::string(one.string_or("sha256", ""))});
  TRY_ASSIGN(manifest.head, processors::chain_state_from_json(*head));
  manifest.signers_sha256 = signers->string_or("sha256", "");
  manifest.signer = {std::string(signer->string_or("signerId", "")), std::string(signer->string_or("publicKey", "")),
                     std::string(signer->string_or("algorithm", ""))};
  manifest.signature = document->string_or("signature", "");
  manifest.tree_root = document->string_or("treeRoot", "");
  manifest.indexed = document->find("index") != nullptr;
  // One comparison instead of a check for each member: whatever was not understood does not come out again.
  if (manifest.to_json() != text) return bad_manifest("a byte of it is not as this program writes it");
  return manifest;
}

Sha256Digest ArchiveManifest::digest() const { return sha256("assay audit archive manifest\n", to_json(false)); }

Result<ArchiveManifest> read_archive_manifest(const std::string& dir) {
  Result<MappedFile> file = MappedFile::open(dir + "/" + std::string(kManifestName));
  if (!file) {
    const bool missing = file.error().code == Errc::kNotFound;
    return Error{missing ? Errc::kIncomplete : Errc::kUnexpected, "reading an archive: " + file.error().message};
  }
  Result<ArchiveManifest> manifest = ArchiveManifest::parse(file->bytes());
  if (!manifest)
    return Error{manifest.error().code, manifest.error().message + " (" + dir + "/" + std::string(kManifestName) + ")"};
  return manifest;
}

Result<ChainState> read_archive_head(const std::string& dir) {
  TRY_ASSIGN(std::optional<ChainState> staged, read_staged_head(dir));
  Result<ArchiveManifest> manifest = read_archive_manifest(dir);
  if (!manifest && (manifest.error().code != Errc::kIncomplete || !staged)) return manifest.error();
  if (staged && (!manifest || staged->sequence > manifest->head.sequence)) return std::move(*staged);
  return manifest->head;
}

Result<std::unique_ptr<AuditSink>> open_archive_sink(const std::string& dir, std::shared_ptr<Signer> signer,
                                                     const ArchiveOptions& options) {
  TRY_ASSIGN(DirectoryLock lock, DirectoryLock::take(dir));
  return std::unique_ptr<AuditSink>(std::make_unique<ArchiveSink>(dir, std::move(signer), options, std::move(lock)));
}

namespace {

/// What an archive that is only added to holds, as a manifest would say it; `keys` becomes the name of the newest keys.
Result<ArchiveManifest> read_batches(const std::string& dir, std::string& keys) {
  ArchiveManifest manifest;
  TRY_ASSIGN(const std::vector<std::string> names, list_files(dir + "/" + std::string(kBatchFolder)));
  for (const std::string& name : names) {
    TRY_ASSIGN(const MappedFile file, MappedFile::open(dir + "/" + std::string(kBatchFolder) + name));
    TRY_ASSIGN(AuditBatch batch, AuditBatch::parse(file.bytes()));
    if (batch.file.first_sequence != manifest.head.sequence + 1)
      return Error{Errc::kIncomplete,
                   "reading an archive: " + AuditBatch::name_of(manifest.head.sequence + 1) + " is not in " + dir};
    TRY_ASSIGN(const std::string hash, from_hex(batch.file.last_hash));
    if (hash.size() != manifest.head.head_hash.size()) return bad_manifest(name + " has a last hash that is none");
    std::ranges::copy(hash, manifest.head.head_hash.begin());
    manifest.head.sequence = batch.last_sequence();
    keys = batch.signers_name();
    manifest.files.push_back(std::move(batch.file));
  }
  return manifest;
}

}  // namespace

Result<StoredChain> open_archive_chain(const std::string& dir, int64_t after) {
  Result<ArchiveManifest> found = read_archive_manifest(dir);
  std::string keys(kSignersName);
  if (!found && found.error().code == Errc::kIncomplete && MappedFile::open(dir + "/" + AuditBatch::name_of(1)))
    found = read_batches(dir, keys);
  TRY_ASSIGN(ArchiveManifest manifest, std::move(found));
  StoredChain chain;
  TRY_ASSIGN(chain.signers, SignerRegistry::load(dir + "/" + keys));
  chain.head = manifest.head;
  chain.lines = [lines = std::make_shared<ArchiveLines>(dir, manifest.files, after)] { return lines->next(); };
  return chain;
}

namespace {

/// The policy, and the checkpoints that the exported rows reach.
Result<void> copy_checkpoints(const std::string& from, const std::string& out, int64_t rows, ArchiveManifest& manifest) {
  TRY_ASSIGN(std::vector<std::string> names, list_files(from));
  for (const std::string& name : names) {
    const bool note = name.starts_with("checkpoints/") && name.ends_with(".note");
    if (!note && name != "policy") continue;
    if (note && std::atoll(name.c_str() + std::string_view("checkpoints/").size()) > rows) continue;  // made since
    TRY_ASSIGN(MappedFile file, MappedFile::open(from + "/" + name));
    TRY(write_file(out, name, file.bytes(), true));
    manifest.evidence.push_back({name, to_hex(as_bytes(sha256(file.bytes())))});
  }
  return {};
}

}  // namespace

Result<ArchiveManifest> export_archive(StoredChain chain, const std::string& out, Signer& signer,
                                       const std::function<void(int64_t rows)>& progress, const std::string& checkpoint_dir) {
  TRY_ASSIGN(DirectoryLock lock, DirectoryLock::take(out));
  TRY_ASSIGN(std::vector<std::string> present, list_files(out));
  if (!present.empty()) return Error{Errc::kRefused, "exporting to " + out + ": it is not empty (" + present.front() + ")"};

  const ArchiveOptions options;
  const Archive archive(out, options);
  ArchiveManifest manifest;
  ChainState read;  // as far as the lines tell
  read.sequence = chain.first - 1;
  const bool all = chain.first == 1;  // a tree, and what was signed of it, is of all rows
  Cutter cutter(options);
  const TileWriter write = [&](const std::string& name, std::string_view bytes) { return write_file(out, name, bytes, false); };
  TileBuilder tree(write);
  IdIndexBuilder ids(write);
  auto flush_all_but = [&](size_t keep) -> Result<void> {
    for (; cutter.chunks.size() > keep; cutter.chunks.pop_front()) {
      TRY_ASSIGN(ArchiveFile file, archive.write(cutter.chunks.front()));
      manifest.files.push_back(std::move(file));
    }
    return {};
  };
  while (true) {
    TRY_ASSIGN(std::vector<StoredLine> block, chain.lines());
    if (block.empty()) break;
    for (const StoredLine& line : block) {
      Result<SignedRow> row = parse_audit_line(line.text);
      if (!row) return Error{row.error().code, "exporting " + line.place + ": " + row.error().message};
      ++read.sequence;
      read.head_hash = row->row.hash;
      read.head_id = row->row.id;
      read.last_created_at_us = row->row.created_at_us;
      cutter.add(row->row.created_at_us, read.sequence, to_hex(as_bytes(row->row.hash)), line.text);
      if (!all) continue;
      TRY(tree.add(processors::merkle_leaf(as_bytes(row->row.hash))));
      TRY(ids.add(row->row.id));
    }
    TRY(flush_all_but(1));
    if (progress) progress(read.sequence - chain.first + 1);
  }
  TRY(flush_all_but(0));

  if (chain.complete && (read.sequence != chain.head.sequence || read.head_hash != chain.head.head_hash))
    return Error{Errc::kTampered, "exporting to " + out + ": the rows end at " + std::to_string(read.sequence) + ", hash " +
                                      to_hex(as_bytes(read.head_hash)) + "; the head says " + std::to_string(chain.head.sequence) +
                                      ", hash " + to_hex(as_bytes(chain.head.head_hash))};
  if (chain.last > 0 && read.sequence != chain.last)
    return Error{Errc::kTampered, "exporting to " + out + ": the rows end at " + std::to_string(read.sequence) + ", not at " +
                                      std::to_string(chain.last)};
  read.next_offset = Offset(-1);  // an export that ends before the chain does cannot be continued
  manifest.head = chain.complete && all ? chain.head : read;
  if (const SignerEntry* known = chain.signers.find(signer.key().signer_id); known == nullptr || known->key != signer.key())
    TRY(chain.signers.add({signer.key(), {}, {}, false}));
  TRY(archive.write_signers(chain.signers, manifest));
  if (all) {
    TRY(tree.write_partial());
    TRY(ids.write_partial());
    manifest.indexed = true;
    manifest.tree_root = to_hex(as_bytes(tree.root()));
  }
  if (all && !checkpoint_dir.empty()) TRY(copy_checkpoints(checkpoint_dir, out, read.sequence, manifest));
  TRY(archive.publish(manifest, signer));
  return manifest;
}

namespace {

bool is_row_of(std::string_view line, std::string_view event_id) {
  if (line.find(event_id) == line.npos) return false;
  const std::optional<RowView> row = view_audit_line(line);
  return row && row->id == event_id;
}

}  // namespace

Result<std::string> read_archive_row(const std::string& dir, int64_t sequence) {
  TRY_ASSIGN(ArchiveManifest manifest, read_archive_manifest(dir));
  Error absent{Errc::kNotFound, "reading row " + std::to_string(sequence) + " of " + dir + ": it has " +
                                    std::to_string(manifest.head.sequence) + " rows"};
  if (sequence < 1) return absent;
  ArchiveLines lines(dir, manifest.files, sequence - 1);
  TRY_ASSIGN(std::vector<StoredLine> block, lines.next());
  if (block.empty()) return absent;
  return std::move(block.front().text);
}

Result<FoundRow> find_archive_row(const std::string& dir, std::string_view event_id, const std::string& index_dir) {
  TRY_ASSIGN(ArchiveManifest manifest, read_archive_manifest(dir));
  for (const int64_t sequence : find_in_id_index(index_dir, event_id)) {
    ArchiveLines lines(dir, manifest.files, sequence - 1);
    TRY_ASSIGN(std::vector<StoredLine> block, lines.next());
    if (!block.empty() && is_row_of(block.front().text, event_id)) return FoundRow{sequence, block.front().text};
  }
  ArchiveLines lines(dir, manifest.files, 0);
  for (int64_t sequence = 1;;) {
    TRY_ASSIGN(std::vector<StoredLine> block, lines.next());
    if (block.empty()) break;
    for (const StoredLine& line : block) {
      if (is_row_of(line.text, event_id)) return FoundRow{sequence, line.text};
      ++sequence;
    }
  }
  return Error{Errc::kNotFound, "looking for event " + std::string(event_id) + " in " + dir + ": there is no such row"};
}

}  // namespace assay::streams
