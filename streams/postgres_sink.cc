#include "streams/postgres_sink.h"

#include <algorithm>
#include <optional>
#include <pqxx/pqxx>
#include <tuple>
#include <utility>
#include <vector>

#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/migrations.h"
#include "streams/personal_store.h"

namespace assay::streams {
namespace {

using processors::ChainState;

constexpr int64_t kMigrationLock = 0x6173736179;  // "assay"; pg_advisory_xact_lock
constexpr int64_t kPageBytes = 8 << 20;
constexpr int64_t kPageRowsMax = 4096;

/// The address without what must not be logged.
std::string public_address(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == url.npos) return "PostgreSQL";
  const size_t host = url.find('@', scheme) == url.npos ? scheme + 3 : url.find('@', scheme) + 1;
  return "PostgreSQL at " + url.substr(host, url.find('?', host) - host);
}

/// Adds what keeps a dead network from blocking for ever, unless the URL says otherwise.
std::string with_timeouts(std::string url) {
  const bool uri = url.find("://") != url.npos;
  for (const auto& [name, value] :
       {std::pair{"connect_timeout", "5"}, {"tcp_user_timeout", "15000"}, {"application_name", "assay"}})
    if (url.find(name) == url.npos) url += std::string(!uri ? " " : url.find('?') == url.npos ? "?" : "&") + name + "=" + value;
  return url;
}

std::unique_ptr<pqxx::connection> connect(const std::string& url) {
  auto connection = std::make_unique<pqxx::connection>(with_timeouts(url));
  pqxx::nontransaction settings(*connection);
  settings.exec("SET client_min_messages = warning; SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'");
  return connection;
}

std::string first_line(const char* text) {
  std::string line(text);
  return line.substr(0, line.find('\n'));
}

/// Runs what talks to the database; no exception of the library leaves this file.
template <class F>
auto guarded(const std::string& attempt, F&& f) -> decltype(f()) {
  auto error = [&](Errc code, const char* what) { return Error{code, attempt + ": " + first_line(what)}; };
  try {
    return f();
  } catch (const pqxx::in_doubt_error& e) {
    return error(Errc::kUnreachable, e.what());
  } catch (const pqxx::broken_connection& e) {
    return error(Errc::kUnreachable, e.what());
  } catch (const pqxx::insufficient_privilege& e) {
    return Error{Errc::kRefused,
                 attempt + ": the database role may not do that (" + first_line(e.what()) +
                     "); deploy/audit_roles.sql says which rights it needs, and `assay audit migrate` is for the owner"};
  } catch (const pqxx::sql_error& e) {
    const std::string& state = e.sqlstate();
    // Connection, resources, operator intervention, lock waits, serialization, a standby: another try may succeed.
    for (std::string_view retryable : {"08", "53", "57", "55P03", "40", "25006", "25P03"})
      if (std::string_view(state).starts_with(retryable)) return error(Errc::kUnreachable, e.what());
    if (state == "42P01" || state == "42703")
      return Error{Errc::kIncomplete, attempt + ": there is no audit chain in this database (" + first_line(e.what()) + ")"};
    if (state.empty()) return error(Errc::kUnreachable, e.what());  // the connection ended before an answer
    if (state == "23001") return error(Errc::kRefused, e.what());   // restrict_violation: a trigger of ours
    return error(Errc::kUnexpected, e.what());
  } catch (const std::exception& e) {
    return error(Errc::kUnexpected, e.what());
  }
}

/// Whether every migration of this binary, and no other, was applied with this text.
bool up_to_date(pqxx::connection& connection) {
  pqxx::work tx(connection);
  // Not by to_regclass: what it does not find, the session would go on not finding behind the lock of migrate().
  if (!tx.exec1("SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'assay_migrations' AND pg_table_is_visible(oid))")[0]
           .as<bool>())
    return false;
  const pqxx::result applied = tx.exec("SELECT sha256 FROM assay_migrations ORDER BY version");
  return std::ranges::equal(applied, migrations(), [](const pqxx::row& row, const Migration& migration) {
    return row[0].as<std::string>() == to_hex(as_bytes(sha256(migration.sql)));
  });
}

Result<void> migrate(pqxx::connection& connection, const std::string& where) {
  if (up_to_date(connection)) return {};
  pqxx::work tx(connection);
  tx.exec("SELECT pg_advisory_xact_lock(" + std::to_string(kMigrationLock) + ")");
  if (tx.exec1("SELECT to_regclass('assay_migrations') IS NULL")[0].as<bool>())
    tx.exec(
        "CREATE TABLE assay_migrations (version int PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())");
  const std::span<const Migration> known = migrations();
  const pqxx::result applied = tx.exec("SELECT version, name, sha256 FROM assay_migrations ORDER BY version");
  if (std::ssize(known) < static_cast<ptrdiff_t>(applied.size()))
    return Error{Errc::kRefused, "migrating " + where + ": its schema is at version " + std::to_string(applied.size()) +
                                     ", this binary knows up to " + std::to_string(known.size()) + "; run the newer assay"};
  int version = 0;
  for (const Migration& migration : known) {
    const std::string digest = to_hex(as_bytes(sha256(migration.sql)));
    if (static_cast<size_t>(version) < applied.size()) {
      const pqxx::row row = applied[static_cast<pqxx::result::size_type>(version)];
      if (row[0].as<int>() != version + 1 || row[2].as<std::string>() != digest)
        return Error{Errc::kRefused, "migrating " + where + ": migration " + row[1].as<std::string>() +
                                         " was applied with another text than this binary's " + std::string(migration.name)};
    } else {
      tx.exec(std::string(migration.sql));
      tx.exec_params("INSERT INTO assay_migrations (version, name, sha256) VALUES ($1, $2, $3)", version + 1,
                     std::string(migration.name), digest);
    }
    ++version;
  }
  tx.commit();
  return {};
}

Result<ChainState> read_state(const pqxx::row& row, const std::string& where) {
  TRY_ASSIGN(Json document, parse_json(row["state"].as<std::string>()));
  TRY_ASSIGN(ChainState state, processors::chain_state_from_json(document));
  if (state.next_offset.value != row["next_offset"].as<int64_t>())
    return Error{Errc::kCorrupt, "reading the chain's head in " + where + ": next_offset differs from the one in its state"};
  return state;
}

class PostgresSink : public AuditSink {
 public:
  explicit PostgresSink(std::string url) : url_(std::move(url)), where_(public_address(url_)) {}

  std::string describe() const override { return where_; }

  Result<ChainState> take_over(const SignerKey& signer) override {
    connection_.reset();
    return dropping_connection(guarded("taking over the audit chain in " + where_, [&]() -> Result<ChainState> {
      TRY(open());
      TRY(migrate(*connection_, where_));
      pqxx::work tx(*connection_);
      const pqxx::row head = tx.exec1(
          "UPDATE audit_chain_head SET epoch = epoch + 1 RETURNING epoch, next_offset, state::text AS state, "
          "signed_state::text AS signed_state");
      TRY_ASSIGN(ChainState state, read_state(head, where_));
      TRY_ASSIGN(std::optional<ChainState> signed_state, read_signed_state(head));
      const pqxx::result clash = tx.exec_params(
          "SELECT signer_id FROM audit_signers WHERE (signer_id = $1) <> (public_key = $2 AND algorithm = $3) LIMIT 1",
          signer.signer_id, signer.public_key, signer.algorithm);
      if (!clash.empty())
        return Error{Errc::kRefused, "taking over the audit chain in " + where_ + ": signer " + signer.signer_id +
                                         " differs from " + clash[0][0].as<std::string>() +
                                         " in audit_signers, where it has another id or another key"};
      tx.exec_params("INSERT INTO audit_signers (signer_id, public_key, algorithm) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                     signer.signer_id, signer.public_key, signer.algorithm);
      tx.commit();
      epoch_ = head["epoch"].as<int64_t>();
      signed_state_ = std::move(signed_state);
      return state;
    }));
  }

  std::optional<ChainState> signed_state() const override { return signed_state_; }

  Result<void> append(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    return store("appending to", rows, before, after, false);
  }

  Result<void> stage(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    return store("staging rows of", rows, before, after, !rows.empty());
  }

  Result<void> sign(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    CHECK(epoch_ > 0 && before.sequence < after.sequence && std::ssize(rows) == after.sequence - before.sequence);
    return dropping_connection(guarded("signing rows of the audit chain in " + where_, [&]() -> Result<void> {
      TRY(open());
      pqxx::work tx(*connection_);
      const std::string state = canonical(processors::chain_state_to_json(after));
      // When the last row that waits is signed, nothing is left to remember.
      const pqxx::result moved = tx.exec_params(
          "UPDATE audit_chain_head SET signed_sequence = CASE WHEN $1::bigint < (state->>'sequence')::bigint THEN $1::bigint END, "
          "signed_state = CASE WHEN $1::bigint < (state->>'sequence')::bigint THEN $2::json END "
          "WHERE epoch = $3 AND signed_sequence = $4",
          after.sequence, state, epoch_, before.sequence);
      if (moved.affected_rows() == 0) {
        const pqxx::row head = tx.exec1(
            "SELECT epoch, COALESCE(signed_sequence, (state->>'sequence')::bigint) AS signed FROM audit_chain_head FOR UPDATE");
        if (head["epoch"].as<int64_t>() == epoch_ && head["signed"].as<int64_t>() >= after.sequence) return {};
        return fenced("signing rows of", head);
      }
      copy_signatures(tx, rows);
      tx.commit();
      return {};
    }));
  }

 private:
  Result<void> store(const std::string& attempt, std::span<const SignedRow> rows, const ChainState& before, const ChainState& after,
                     bool staged) {
    CHECK(epoch_ > 0 && before.next_offset < after.next_offset);
    return dropping_connection(guarded(attempt + " the audit chain in " + where_, [&]() -> Result<void> {
      TRY(open());
      pqxx::work tx(*connection_);
      const std::string state = canonical(processors::chain_state_to_json(after));
      const std::string set = "UPDATE audit_chain_head SET next_offset = $1, state = $2";
      const std::string where = " WHERE epoch = $3 AND next_offset = $4";
      const pqxx::result moved =
          staged ? tx.exec_params(set +
                                      ", signed_sequence = COALESCE(signed_sequence, $5), "
                                      "signed_state = COALESCE(signed_state, $6)" +
                                      where,
                                  after.next_offset.value, state, epoch_, before.next_offset.value, before.sequence,
                                  canonical(processors::chain_state_to_json(before)))
                 : tx.exec_params(set + where, after.next_offset.value, state, epoch_, before.next_offset.value);
      if (moved.affected_rows() == 0) return fenced_or_done(attempt, tx, state);
      if (!rows.empty()) copy(tx, rows);
      tx.commit();
      return {};
    }));
  }

  Result<std::optional<ChainState>> read_signed_state(const pqxx::row& head) const {
    if (head["signed_state"].is_null()) return std::optional<ChainState>();
    TRY_ASSIGN(Json document, parse_json(head["signed_state"].as<std::string>()));
    TRY_ASSIGN(ChainState state, processors::chain_state_from_json(document));
    return std::optional(std::move(state));
  }

  Result<void> open() {
    if (connection_ != nullptr) return {};
    connection_ = connect(url_);
    pqxx::nontransaction settings(*connection_);
    // A writer that died with the row locked must not block its successor for long.
    settings.exec(
        "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'; "
        "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3");
    return {};
  }

  /// A connection that failed may be in any state; the next call opens a new one.
  template <class T>
  Result<T> dropping_connection(Result<T> result) {
    if (!result) connection_.reset();
    return result;
  }

  /// The head was not where we left it: either a COMMIT whose answer was lost did happen, or somebody else took over.
  /// FOR UPDATE waits for the backend of the lost answer, should it still be at work.
  Result<void> fenced_or_done(const std::string& attempt, pqxx::work& tx, const std::string& state) {
    const pqxx::row head = tx.exec1("SELECT epoch, state::text AS state FROM audit_chain_head FOR UPDATE");
    if (head["epoch"].as<int64_t>() == epoch_ && head["state"].as<std::string>() == state) return {};
    return fenced(attempt, head);
  }

  Error fenced(const std::string& attempt, const pqxx::row& head) const {
    return {Errc::kFenced, attempt + " the audit chain in " + where_ + ": epoch " + head["epoch"].as<std::string>() +
                               " took over from epoch " + std::to_string(epoch_)};
  }

  static void copy(pqxx::work& tx, std::span<const SignedRow> rows) {
#if PQXX_VERSION_MAJOR >= 7
    auto stream = pqxx::stream_to::table(
        tx, {"audit_log"},
        {"sequence", "id", "event_type", "created_at", "payload", "prev_hash", "hash", "signature", "signer_kid"});
#else
    static const std::vector<std::string> kColumns = {"sequence",  "id",   "event_type", "created_at", "payload",
                                                      "prev_hash", "hash", "signature",  "signer_kid"};
    pqxx::stream_to stream(tx, "audit_log", kColumns);
#endif
    for (const SignedRow& one : rows) {
      const processors::AuditRow& row = one.row;
      const std::string prev = row.prev_hash ? to_hex(as_bytes(*row.prev_hash)) : std::string();
      stream << std::make_tuple(row.sequence, row.id, row.event_type, format_rfc3339_us(row.created_at_us), row.payload,
                                row.prev_hash ? prev.c_str() : static_cast<const char*>(nullptr), to_hex(as_bytes(row.hash)),
                                one.signature.empty() ? static_cast<const char*>(nullptr) : one.signature.c_str(), one.signer_kid);
    }
    stream.complete();
  }

  static void copy_signatures(pqxx::work& tx, std::span<const SignedRow> rows) {
#if PQXX_VERSION_MAJOR >= 7
    auto stream = pqxx::stream_to::table(tx, {"audit_signatures"}, {"sequence", "signature", "signer_kid"});
#else
    static const std::vector<std::string> kColumns = {"sequence", "signature", "signer_kid"};
    pqxx::stream_to stream(tx, "audit_signatures", kColumns);
#endif
    for (const SignedRow& one : rows) stream << std::make_tuple(one.row.sequence, one.signature, one.signer_kid);
    stream.complete();
  }

  std::string url_;
  std::string where_;
  std::unique_ptr<pqxx::connection> connection_;
  int64_t epoch_ = 0;
  std::optional<ChainState> signed_state_;  // when it was taken over
};

/// The keys of the chain as its head has them.
Result<SignerRegistry> read_signers(pqxx::transaction_base& tx, const processors::AuditControl& control) {
  SignerRegistry signers;
  for (const pqxx::row& row : tx.exec("SELECT signer_id, public_key, algorithm FROM audit_signers ORDER BY signer_id"))
    TRY(signers.add({{row[0].as<std::string>(), row[1].as<std::string>(), row[2].as<std::string>()}, {}, {}, false}));
  return standing_registry(std::move(signers), control);
}

/// "2026-05-01 12:00:00.12+00", as PostgreSQL prints it in UTC, in the form of an archive's lines. What is not of that form
/// (infinity, a year beyond 9999) stays as it is, for the verifier to refuse.
std::string created_at_text(std::string text) {
  constexpr size_t kSeconds = 19;
  if (text.size() < kSeconds + 3 || text[10] != ' ' || !text.ends_with("+00")) return text;
  text.resize(text.size() - 3);
  text[10] = 'T';
  if (text.size() == kSeconds) text += '.';
  if (text.size() > kSeconds + 7) return text;
  text.append(kSeconds + 7 - text.size(), '0');
  return text + "Z";
}

void append_column(std::string_view name, const pqxx::field& field, std::string& out) {
  out += name;
  if (field.is_null()) {
    out += "null";
  } else {
    append_string({field.c_str(), field.size()}, out);
  }
}

/// The rows of audit_events as an archive's lines; whatever is wrong in a column is wrong in the line.
class DatabaseLines {
 public:
  using Snapshot = pqxx::transaction<pqxx::isolation_level::repeatable_read>;

  DatabaseLines(std::unique_ptr<pqxx::connection> connection, std::string where, int64_t after)
      : where_(std::move(where)),
        connection_(std::move(connection)),
        snapshot_(std::make_unique<Snapshot>(*connection_)),
        from_(after == 0 ? INT64_MIN : after + 1) {
    snapshot_->exec("SET TRANSACTION READ ONLY");
  }

  Snapshot& snapshot() { return *snapshot_; }

  Result<std::vector<StoredLine>> next() {
    return guarded("reading audit_events in " + where_, [&]() -> Result<std::vector<StoredLine>> {
      const pqxx::result page = snapshot_->exec_params(
          "SELECT sequence, id, event_type, created_at::text AS created_at, payload::text AS payload, prev_hash, hash, signature, "
          "signer_kid "
          "FROM audit_events WHERE sequence >= $1 ORDER BY sequence LIMIT $2",
          from_, page_rows_);
      std::vector<StoredLine> lines;
      int64_t bytes = 0;
      for (const pqxx::row& row : page) {
        StoredLine line;
        line.sequence = row["sequence"].as<int64_t>();
        line.place = "audit_events sequence " + std::to_string(line.sequence);
        std::string& text = line.text;
        text.reserve(row["payload"].size() + 512);
        text += "{\"created_at\":";
        append_string(created_at_text(row["created_at"].as<std::string>()), text);
        append_column(",\"event_type\":", row["event_type"], text);
        append_column(",\"hash\":", row["hash"], text);
        append_column(",\"id\":", row["id"], text);
        text += ",\"payload\":";
        text += row["payload"].c_str();
        append_column(",\"prev_hash\":", row["prev_hash"], text);
        append_column(",\"signature\":", row["signature"], text);
        append_column(",\"signer_kid\":", row["signer_kid"], text);
        text += '}';
        bytes += std::ssize(text);
        lines.push_back(std::move(line));
      }
      if (!lines.empty()) {
        from_ = lines.back().sequence + 1;
        page_rows_ = std::clamp<int64_t>(kPageBytes / std::max<int64_t>(1, bytes / std::ssize(lines)), 8, kPageRowsMax);
      }
      return lines;
    });
  }

 private:
  std::string where_;
  std::unique_ptr<pqxx::connection> connection_;
  std::unique_ptr<Snapshot> snapshot_;
  int64_t from_;
  int64_t page_rows_ = 256;
};

/// The rows beside the chain that can be deleted.
class PostgresPersonal : public PersonalStore {
 public:
  explicit PostgresPersonal(std::string url) : url_(std::move(url)), where_(public_address(url_)) {}

  std::string describe() const override { return "audit_personal in " + where_; }

  Result<void> add(const std::vector<processors::PersonalRow>& rows) override {
    return guarded("adding to " + describe(), [&]() -> Result<void> {
      const auto connection = connect(url_);
      pqxx::work tx(*connection);
      for (const processors::PersonalRow& row : rows)
        tx.exec_params(
            "INSERT INTO audit_personal (reference, event_id, field, subject, salt, plaintext) VALUES ($1, $2, $3, $4, $5, $6)",
            row.reference, row.event_id, row.field, row.subject, row.salt, row.plaintext);
      tx.commit();
      return {};
    });
  }

  Result<std::vector<PersonalKey>> keys() override {
    return guarded("reading " + describe(), [&]() -> Result<std::vector<PersonalKey>> {
      const auto connection = connect(url_);
      pqxx::read_transaction tx(*connection);
      std::vector<PersonalKey> out;
      for (const pqxx::row& row : tx.exec("SELECT reference, event_id, subject FROM audit_personal ORDER BY reference"))
        out.push_back({row[0].as<std::string>(), row[1].as<std::string>(), row[2].as<std::string>()});
      return out;
    });
  }

  Result<std::vector<processors::PersonalRow>> rows() override {
    return guarded("reading " + describe(), [&]() -> Result<std::vector<processors::PersonalRow>> {
      const auto connection = connect(url_);
      pqxx::read_transaction tx(*connection);
      std::vector<processors::PersonalRow> out;
      for (const pqxx::row& row : tx.exec(
               "SELECT reference, event_id, field, subject, salt, plaintext FROM audit_personal ORDER BY reference COLLATE \"C\""))
        out.push_back({row[0].as<std::string>(), row[1].as<std::string>(), row[2].as<std::string>(), row[3].as<std::string>(),
                       row[4].as<std::string>(), row[5].as<std::string>()});
      return out;
    });
  }

  Result<int64_t> erase(const std::set<std::string, std::less<>>& references) override {
    return guarded("erasing from " + describe(), [&]() -> Result<int64_t> {
      const auto connection = connect(url_);
      pqxx::work tx(*connection);
      std::string list;  // references are hex digits behind a word: nothing in them needs a quote
      for (const std::string& one : references) list += (list.empty() ? "" : ",") + one;
      const auto erased = tx.exec_params("DELETE FROM audit_personal WHERE reference = ANY ($1::text[])", "{" + list + "}");
      tx.commit();
      return static_cast<int64_t>(erased.affected_rows());
    });
  }

 private:
  std::string url_;
  std::string where_;
};

}  // namespace

std::unique_ptr<PersonalStore> open_postgres_personal(const std::string& url) { return std::make_unique<PostgresPersonal>(url); }

Result<void> migrate_database(const std::string& url) {
  const std::string where = public_address(url);
  return guarded("migrating " + where, [&]() -> Result<void> { return migrate(*connect(url), where); });
}

std::unique_ptr<AuditSink> open_postgres_sink(const std::string& url) { return std::make_unique<PostgresSink>(url); }

Result<StoredChain> open_database_chain(const std::string& url, int64_t after) {
  const std::string where = public_address(url);
  return guarded("reading the audit chain in " + where, [&]() -> Result<StoredChain> {
    auto lines = std::make_shared<DatabaseLines>(connect(url), where, after);
    StoredChain chain;
    const pqxx::row head = lines->snapshot().exec1(
        "SELECT next_offset, state::text AS state, signed_state::text AS signed_state FROM audit_chain_head");
    TRY_ASSIGN(chain.head, read_state(head, where));
    TRY_ASSIGN(chain.signers, read_signers(lines->snapshot(), chain.head.control));
    if (!head["signed_state"].is_null()) {
      TRY_ASSIGN(Json signed_state, parse_json(head["signed_state"].as<std::string>()));
      TRY_ASSIGN(chain.head, processors::chain_state_from_json(signed_state));
    }
    chain.lines = [lines] { return lines->next(); };
    return chain;
  });
}

Result<int64_t> find_database_row(const std::string& url, const std::string& event_id) {
  const std::string where = public_address(url);
  return guarded("looking for an event in " + where, [&]() -> Result<int64_t> {
    const auto connection = connect(url);
    pqxx::read_transaction tx(*connection);
    const pqxx::result found = tx.exec_params("SELECT min(sequence) FROM audit_events WHERE id = $1", event_id);
    if (found[0][0].is_null())
      return Error{Errc::kNotFound, "looking for event " + event_id + " in " + where + ": there is no such row"};
    return found[0][0].as<int64_t>();
  });
}

Result<DatabaseHead> read_database_head(const std::string& url) {
  const std::string where = public_address(url);
  return guarded("reading the chain's head in " + where, [&]() -> Result<DatabaseHead> {
    const auto connection = connect(url);
    pqxx::read_transaction tx(*connection);
    const pqxx::row row = tx.exec1(
        "SELECT epoch, next_offset, state::text AS state, (SELECT COALESCE(max(sequence), 0) FROM audit_events) AS signed_through "
        "FROM audit_chain_head");
    DatabaseHead head;
    TRY_ASSIGN(head.state, read_state(row, where));
    head.signed_through = row["signed_through"].as<int64_t>();
    head.epoch = row["epoch"].as<int64_t>();
    TRY_ASSIGN(head.signers, read_signers(tx, head.state.control));
    return head;
  });
}

}  // namespace assay::streams
