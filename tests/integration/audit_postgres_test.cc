// The audit chain in a real PostgreSQL: migrations, the rules of outside verifiers, fencing, lost answers, tampering.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <pqxx/pqxx>
#include <thread>
#include <utility>

#include "streams/audit_archive.h"
#include "streams/audit_projector.h"
#include "streams/audit_verify.h"
#include "streams/migrations.h"
#include "streams/personal_store.h"
#include "streams/postgres_sink.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

std::string with_parameters(std::string url, const std::string& parameters) {
  return url + (url.find('?') == url.npos ? "?" : "&") + parameters;
}

/// Stands between a client and the database, and cuts the line at a COMMIT: before it is passed on, or before it is answered. Held
/// back, the backend sits in its open transaction after the client has gone, until it is let go on to the COMMIT or to its end.
class CuttingProxy {
 public:
  enum class Cut { kNever, kBeforeCommit, kBeforeAnswer, kHeldThenCommitted, kHeldThenEnded };

  CuttingProxy(std::string host, int port) : host_(std::move(host)), port_(port) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && ::listen(listener_, 16) == 0);
    socklen_t size = sizeof address;
    CHECK(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    listening_port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~CuttingProxy() {
    stop_ = true;
    acceptor_.join();
    for (std::thread& thread : pipes_) thread.join();
    ::close(listener_);
  }

  int port() const { return listening_port_; }
  void arm(Cut cut) {
    let_go_ = false;
    cut_ = cut;
  }
  void let_go() { let_go_ = true; }
  int cuts() const { return cuts_; }

 private:
  void accept_all() {
    while (!stop_) {
      pollfd ready{listener_, POLLIN, 0};
      if (::poll(&ready, 1, 20) != 1) continue;
      const int client = ::accept(listener_, nullptr, nullptr);
      if (client >= 0) pipes_.emplace_back([this, client] { pipe(client); });
    }
  }

  void pipe(int client) {
    const int server = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port_));
    ::inet_pton(AF_INET, host_.c_str(), &address.sin_addr);
    if (::connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) relay(client, server);
    ::close(client);
    ::close(server);
  }

  void relay(int client, int server) {
    std::string buffer(1 << 16, '\0');
    while (!stop_) {
      pollfd ready[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (::poll(ready, 2, 20) <= 0) continue;
      for (int side : {0, 1}) {
        if (ready[side].revents == 0) continue;
        const ssize_t n = ::read(ready[side].fd, buffer.data(), buffer.size());
        if (n <= 0) return;
        const std::string_view bytes(buffer.data(), static_cast<size_t>(n));
        const bool commit = side == 0 && bytes.starts_with('Q') && bytes.find("COMMIT") != bytes.npos;
        const Cut cut = commit ? cut_.exchange(Cut::kNever) : Cut::kNever;
        if (cut != Cut::kNever) ++cuts_;
        if (cut == Cut::kBeforeCommit) return;
        if (cut == Cut::kHeldThenCommitted || cut == Cut::kHeldThenEnded) {
          ::shutdown(client, SHUT_RDWR);
          while (!let_go_ && !stop_) std::this_thread::sleep_for(std::chrono::milliseconds(2));
          if (cut == Cut::kHeldThenEnded) return;
        }
        if (::write(ready[1 - side].fd, bytes.data(), bytes.size()) != n) return;
        if (cut != Cut::kNever) {
          (void)!::read(server, buffer.data(), buffer.size());  // the server has done it; nobody hears of it
          return;
        }
      }
    }
  }

  std::string host_;
  int port_;
  int listener_ = -1;
  int listening_port_ = 0;
  std::atomic<bool> stop_{false}, let_go_{false};
  std::atomic<Cut> cut_{Cut::kNever};
  std::atomic<int> cuts_{0};
  std::thread acceptor_;
  std::vector<std::thread> pipes_;
};

class AuditPostgres : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* url = std::getenv("ASSAY_TEST_DATABASE_URL");
    ASSERT_NE(url, nullptr) << "ASSAY_TEST_DATABASE_URL is not set: run this with `deploy/with --database -- …`";
    admin_ = url;
    name_ = "audit_test_" + std::to_string(::getpid()) + "_" + std::to_string(counter_++);
    run(admin_, "CREATE DATABASE " + name_);
    url_ = with_parameters(admin_, "dbname=" + name_);
    signer_ = test_signer(dir_);
  }
  void TearDown() override {
    if (!name_.empty()) run(admin_, "DROP DATABASE IF EXISTS " + name_ + " WITH (FORCE)");
    for (const std::string& role : roles_) run(admin_, "DROP ROLE " + role);
  }

  static void run(const std::string& url, const std::string& sql) {
    pqxx::connection connection(url);
    pqxx::nontransaction(connection).exec(sql);
  }
  void run(const std::string& sql) { run(url_, sql); }
  pqxx::result query(const std::string& sql) {
    pqxx::connection connection(url_);
    return pqxx::nontransaction(connection).exec(sql);
  }
  std::string one(const std::string& sql) { return query(sql)[0][0].c_str(); }

  /// Appends rows of the records from `state` on, as one batch.
  Result<void> append(AuditSink& sink, const std::vector<Record>& records, ChainState& state) {
    const ChainState before = state;
    ChainState after = state;
    const std::vector<SignedRow> rows = make_rows(records, *signer_, after);
    TRY(sink.append(rows, before, after));
    state = after;
    return {};
  }

  struct Roles {
    std::string app, auditor, eraser;
  };
  /// The roles of deploy/audit_roles.sql, which may log in; run twice, as it may be. They go with the test.
  Roles roles() {
    Roles made{name_ + "_app", name_ + "_auditor", name_ + "_eraser"};
    const std::string script = std::string(ASSAY_SOURCE_DIR) + "/deploy/audit_roles.sql";
    const std::string apply = "psql -q -X -v app=" + made.app + " -v auditor=" + made.auditor + " -v eraser=" + made.eraser +
                              " -f " + script + " '" + url_ + "'";
    for (int again = 0; again < 2; ++again) CHECK(std::system(apply.c_str()) == 0);
    for (const std::string& role : {made.app, made.auditor, made.eraser}) {
      run("ALTER ROLE " + role + " LOGIN PASSWORD 'x'");
      roles_.push_back(role);
    }
    return made;
  }
  std::string as(const std::string& role) const { return with_parameters(url_, "user=" + role + "&password=x"); }

  VerifyReport verify() {
    Result<StoredChain> chain = open_database_chain(url_);
    CHECK(chain.has_value());
    Result<VerifyReport> report = verify_chain(*chain, {});
    CHECK(report.has_value());
    return *report;
  }

  TempDir dir_;
  std::string admin_, name_, url_;
  std::vector<std::string> roles_;
  std::shared_ptr<Signer> signer_;
  static inline int counter_ = 0;
};

std::vector<Record> slice(const std::vector<Record>& records, size_t from, size_t to) {
  return {records.begin() + static_cast<ptrdiff_t>(from), records.begin() + static_cast<ptrdiff_t>(to)};
}

TEST_F(AuditPostgres, MigratesOnceAndRefusesWhatItDoesNotKnow) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      Result<void> done = migrate_database(url_);
      EXPECT_TRUE(done) << done.error().message;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(one("SELECT count(*) FROM assay_migrations"), std::to_string(migrations().size()));
  EXPECT_TRUE(migrate_database(url_));
  run("INSERT INTO assay_migrations (version, name, sha256) SELECT max(version) + 1, 'later', '' FROM assay_migrations");
  Result<void> newer = migrate_database(url_);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, Errc::kRefused);
  EXPECT_NE(newer.error().message.find("newer"), std::string::npos) << newer.error().message;
  run("DELETE FROM assay_migrations WHERE name = 'later'; UPDATE assay_migrations SET sha256 = 'other' WHERE version = 1");
  EXPECT_EQ(migrate_database(url_).error().code, Errc::kRefused);
  EXPECT_EQ(migrate_database(with_parameters(admin_, "dbname=no_such_database")).error().code, Errc::kUnreachable);
}

TEST_F(AuditPostgres, KeepsTheChainAndItsText) {
  auto sink = open_postgres_sink(url_);
  ChainState state = sink->take_over(signer_->key()).value();
  EXPECT_EQ(state, ChainState{});
  std::vector<Record> records = make_records(1000, 4, 300);
  records[3].value = event_value(3, "tab\t newline\n backslash\\ quote\" \u00fc \U0001F600 \\N \\.");
  for (size_t from : {0u, 1u, 400u}) {
    Result<void> done = append(*sink, slice(records, from, from == 0 ? 1 : from == 1 ? 400 : 1000), state);
    ASSERT_TRUE(done) << done.error().message;
  }
  EXPECT_EQ(read_database_head(url_)->state, state);
  const VerifyReport report = verify();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.rows, 1000);
  ChainState expected;
  const std::vector<SignedRow> rows = make_rows(records, *signer_, expected);
  EXPECT_EQ(state, expected);
  EXPECT_EQ(one("SELECT payload::text FROM audit_events WHERE sequence = 4"), rows[3].row.payload) << "the very bytes";
  EXPECT_EQ(open_postgres_sink(url_)->take_over(signer_->key()).value(), expected) << "a restart finds it again";

  // The same chain as files.
  ASSERT_TRUE(export_archive(open_database_chain(url_).value(), dir_ / "out", *signer_));
  const VerifyReport exported = verify_archive(dir_ / "out", {}).value();
  EXPECT_TRUE(exported.verified()) << to_text(exported);
  EXPECT_EQ(exported.head_hash, report.head_hash);
}

TEST_F(AuditPostgres, SatisfiesOutsideVerifiers) {
  auto sink = open_postgres_sink(url_);
  ChainState state = sink->take_over(signer_->key()).value();
  const std::vector<Record> records = make_records(300, 6);
  ASSERT_TRUE(append(*sink, records, state));
  const pqxx::result rows = query("SELECT * FROM audit_events ORDER BY created_at");
  ASSERT_EQ(rows.size(), 300u);
  std::string prev;
  for (const pqxx::row& row : rows) {
    EXPECT_EQ(row["prev_hash"].is_null(), prev.empty());
    EXPECT_EQ(row["prev_hash"].c_str(), prev);
    const std::string preimage = std::string(row["payload"].c_str()) + from_hex(prev).value();
    EXPECT_EQ(row["hash"].c_str(), to_hex(as_bytes(sha256(preimage)))) << "canonical text, then 32 raw bytes";
    EXPECT_TRUE(ed25519_verify(from_base64(signer_->key().public_key).value(), as_bytes(sha256(preimage)),
                               from_base64(row["signature"].c_str()).value()));
    EXPECT_EQ(row["signer_kid"].c_str(), signer_->key().signer_id);
    prev = row["hash"].c_str();
  }
  EXPECT_EQ(one("SELECT count(*) FROM information_schema.columns WHERE table_name = 'audit_events' AND column_name = 'payload' AND "
                "data_type IN ('json','jsonb')"),
            "1");
  EXPECT_EQ(one("SELECT count(*) = count(DISTINCT created_at) AND bool_and(payload::jsonb IS NOT NULL) FROM audit_events"), "t");
  // A signature that is gone: what stands before it is seen, and the head says that there was more.
  run("UPDATE audit_log SET signature = NULL WHERE sequence = 290");
  EXPECT_EQ(one("SELECT count(*) FROM audit_events"), "289");
  EXPECT_EQ(one("SELECT string_agg(status, ',' ORDER BY created_at) FROM (SELECT \"eventId\", status, created_at FROM "
                "audit_staging ORDER BY created_at LIMIT 2) AS s"),
            "pending_signature,pending_predecessor");
  EXPECT_EQ(read_database_head(url_)->signed_through, 289);
  EXPECT_FALSE(verify().verified());
  EXPECT_EQ(verify().rows, 289);
  run("UPDATE audit_log SET signature = '" + std::string(rows[289]["signature"].c_str()) + "' WHERE sequence = 290");
  EXPECT_TRUE(verify().verified());
  // Rows that wait for their signatures, and what stands behind them, are staged and not seen.
  const ChainState before = state;
  ChainState staged = state;
  std::vector<Record> more = make_records(310, 6);
  std::vector<SignedRow> waiting = make_rows(slice(more, 300, 310), *signer_, staged);
  std::vector<std::string> signatures;
  for (SignedRow& row : waiting) signatures.push_back(std::exchange(row.signature, ""));
  ASSERT_TRUE(sink->stage(waiting, before, staged));
  ASSERT_TRUE(sink->stage(waiting, before, staged)) << "again, after an answer that was lost";
  EXPECT_EQ(one("SELECT count(*) FROM audit_log"), "310");
  EXPECT_EQ(one("SELECT count(*) FROM audit_events"), "300");
  EXPECT_EQ(one("SELECT string_agg(DISTINCT status, ',') FROM audit_staging"), "pending_signature");
  EXPECT_EQ(one("SELECT count(*) FROM audit_staging"), "10");
  EXPECT_TRUE(verify().verified()) << "the signed part stands at every instant";
  EXPECT_EQ(read_database_head(url_)->signed_through, 300);
  EXPECT_EQ(read_database_head(url_)->state, staged);
  auto restarted = open_postgres_sink(url_);
  EXPECT_EQ(restarted->take_over(signer_->key()).value(), staged);
  EXPECT_EQ(restarted->signed_state(), before);
  EXPECT_EQ(sink->sign(waiting, before, staged).error().code, Errc::kFenced) << "another one took over";
  // Three of them are signed, then the others: the visible part ends exactly at the first row without a signature.
  ChainState middle = before;
  (void)make_rows(slice(more, 300, 303), *signer_, middle);
  for (size_t i = 0; i < waiting.size(); ++i) waiting[i].signature = signatures[i];
  for (int again = 0; again < 2; ++again) ASSERT_TRUE(restarted->sign(std::span(waiting).first(3), before, middle));
  EXPECT_EQ(one("SELECT count(*) FROM audit_events"), "303");
  EXPECT_EQ(one("SELECT count(*) FROM audit_staging"), "7");
  EXPECT_TRUE(verify().verified()) << to_text(verify());
  for (int again = 0; again < 2; ++again) ASSERT_TRUE(restarted->sign(std::span(waiting).subspan(3), middle, staged));
  EXPECT_EQ(one("SELECT count(*) FROM audit_events"), "310");
  EXPECT_EQ(one("SELECT count(*) FROM audit_staging"), "0");
  EXPECT_EQ(one("SELECT signed_sequence IS NULL FROM audit_chain_head"), "t");
  EXPECT_EQ(verify().rows, 310);
  EXPECT_TRUE(verify().verified()) << to_text(verify());
}

TEST_F(AuditPostgres, TheApplicationOnlyAddsAndTheAuditorOnlyReads) {
  ASSERT_TRUE(migrate_database(url_));
  const auto [app, auditor, eraser] = roles();

  // The application does its work: takes over, adds rows, stages others and signs them.
  auto sink = open_postgres_sink(as(app));
  Result<ChainState> taken = sink->take_over(signer_->key());
  ASSERT_TRUE(taken) << taken.error().message;
  ChainState state = *taken;
  const std::vector<Record> records = make_records(30);
  ASSERT_TRUE(append(*sink, slice(records, 0, 20), state));
  ChainState staged = state;
  std::vector<SignedRow> waiting = make_rows(slice(records, 20, 30), *signer_, staged);
  std::vector<SignedRow> unsigned_rows = waiting;
  for (SignedRow& row : unsigned_rows) row.signature.clear();
  ASSERT_TRUE(sink->stage(unsigned_rows, state, staged));
  ASSERT_TRUE(sink->sign(waiting, state, staged));
  EXPECT_EQ(open_postgres_sink(as(app))->take_over(signer_->key()).value(), staged);

  // The auditor reads, and proves.
  StoredChain chain = open_database_chain(as(auditor)).value();
  const VerifyReport report = verify_chain(chain, {}).value();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.rows, 30);
  EXPECT_EQ(open_postgres_sink(as(auditor))->take_over(signer_->key()).error().code, Errc::kRefused);

  // Neither changes, removes or empties anything, nor lets itself do so; through the views neither.
  for (const std::string& role : {app, auditor, eraser})
    for (const std::string& sql :
         std::vector<std::string>{"UPDATE audit_log SET payload = payload",
                                  "UPDATE audit_log SET signature = NULL",
                                  "UPDATE audit_signatures SET signature = 'x'",
                                  "UPDATE audit_signers SET public_key = 'x'",
                                  "UPDATE audit_events SET signature = 'x'",
                                  "UPDATE audit_staging SET status = 'x'",
                                  "UPDATE audit_chain_head SET singleton = true",
                                  "UPDATE assay_migrations SET sha256 = 'x'",
                                  "DELETE FROM audit_log",
                                  "DELETE FROM audit_signatures",
                                  "DELETE FROM audit_signers",
                                  "DELETE FROM audit_chain_head",
                                  "DELETE FROM audit_events",
                                  "DELETE FROM audit_staging",
                                  "TRUNCATE audit_log CASCADE",
                                  "TRUNCATE audit_signatures",
                                  "TRUNCATE audit_signers",
                                  "TRUNCATE audit_chain_head",
                                  "TRUNCATE audit_personal",
                                  "UPDATE audit_personal SET plaintext = 'x'",
                                  "INSERT INTO audit_events (id) VALUES ('x')",
                                  "INSERT INTO audit_chain_head (state) VALUES ('{}')",
                                  "INSERT INTO assay_migrations (version, name, sha256) VALUES (99, 'x', 'x')",
                                  "CREATE TABLE mine (x int)",
                                  "ALTER TABLE audit_log DROP COLUMN payload",
                                  "DROP TABLE audit_log",
                                  "DROP VIEW audit_events",
                                  "ALTER TABLE audit_log DISABLE TRIGGER ALL",
                                  "SET ROLE " + std::string(one("SELECT current_user"))})
      EXPECT_THROW(run(as(role), sql), pqxx::sql_error) << role << ": " << sql;
  for (const char* sql : {"INSERT INTO audit_signers (signer_id, public_key, algorithm) VALUES ('x', 'x', 'ed25519')",
                          "UPDATE audit_chain_head SET epoch = epoch + 1", "INSERT INTO audit_signatures VALUES (1, 'x', 'x')",
                          "SELECT * FROM audit_chain_head FOR UPDATE"})
    EXPECT_THROW(run(as(auditor), sql), pqxx::sql_error) << sql;

  // A schema that is behind is the owner's to change, and the message says so.
  run("DELETE FROM assay_migrations WHERE version = (SELECT max(version) FROM assay_migrations)");
  Result<ChainState> behind = open_postgres_sink(as(app))->take_over(signer_->key());
  ASSERT_FALSE(behind);
  EXPECT_EQ(behind.error().code, Errc::kRefused) << behind.error().message;
}

TEST_F(AuditPostgres, PersonalDataIsTheAuditorsToReadAndTheErasersToDelete) {
  ASSERT_TRUE(migrate_database(url_));
  const auto [app, auditor, eraser] = roles();
  auto row = [](const std::string& id, const std::string& field, const std::string& subject, const std::string& plaintext) {
    const std::string salt(processors::kPersonalSaltBytes, id.back());
    return processors::PersonalRow{
        processors::personal_reference(salt, id, field, plaintext), id, field, subject, to_hex(salt), plaintext};
  };
  std::vector<processors::PersonalRow> rows = {row("av-1", "actor", "user:ada", "user:ada"),
                                               row("av-1", "data.reason", "user:ada", "flu"),
                                               row("av-2", "actor", "user:bob", "user:bob")};
  std::ranges::sort(rows, {}, &processors::PersonalRow::reference);
  const auto of = [&](const std::string& subject) {
    std::set<std::string, std::less<>> out;
    for (const auto& one : rows)
      if (one.subject == subject) out.insert(one.reference);
    return out;
  };
  const auto ours = open_postgres_personal(as(app)), theirs = open_postgres_personal(as(auditor)),
             erasing = open_postgres_personal(as(eraser));
  ASSERT_TRUE(ours->add(rows));
  EXPECT_FALSE(ours->add({rows[0]})) << "one reference, one plaintext";

  // Who writes the chain adds and sees nothing; the auditor sees and changes nothing; the eraser sees who and where, not what.
  EXPECT_EQ(ours->rows().error().code, Errc::kRefused);
  EXPECT_EQ(ours->keys().error().code, Errc::kRefused);
  EXPECT_EQ(ours->erase(of("user:ada")).error().code, Errc::kRefused);
  EXPECT_EQ(theirs->rows().value(), rows);
  EXPECT_EQ(theirs->add({row("av-3", "actor", "x", "x")}).error().code, Errc::kRefused);
  EXPECT_EQ(theirs->erase(of("user:ada")).error().code, Errc::kRefused);
  EXPECT_EQ(erasing->keys()->size(), 3u);
  EXPECT_EQ(erasing->rows().error().code, Errc::kRefused);
  EXPECT_THROW(run(as(eraser), "SELECT salt FROM audit_personal"), pqxx::sql_error);

  // Whatever the means, what a hold in the chain's head covers stays. A temporary table of the same name stands in for nothing.
  const auto hold = [&](const Json& scope) {
    ChainState state = read_database_head(url_)->state;
    state.control.corrections.holds.clear();
    if (!scope.is_null()) state.control.corrections.holds["CASE-7"] = {"CASE-7", "av-9", "litigation", scope};
    run("UPDATE audit_chain_head SET state = '" + canonical(processors::chain_state_to_json(state)) + "'");
  };
  run("INSERT INTO audit_log (sequence, id, event_type, created_at, payload, hash) VALUES (17, 'av-1', 'x', now(), '{}', 'x')");
  const std::string hers = *of("user:ada").begin(), his = *of("user:bob").begin(), nobodys = "personal:" + std::string(64, '0');
  const Json everything = Json::object().set("everything", true);
  const auto rows_of = [](const char* from, const char* to) {
    return Json::object().set("rows", Json::object().set("from", from).set("to", to));
  };
  for (const Json& scope :
       {everything, Json::object().set("subject", hers), Json::object().set("subject", nobodys), rows_of("17", "18")}) {
    hold(scope);
    const Result<int64_t> refused = erasing->erase(of("user:ada"));
    ASSERT_FALSE(refused) << canonical(scope);
    EXPECT_EQ(refused.error().code, Errc::kRefused);
    EXPECT_NE(refused.error().message.find("CASE-7"), std::string::npos) << refused.error().message;
    EXPECT_THROW(run("DELETE FROM audit_personal WHERE subject = 'user:ada'"), pqxx::sql_error) << "not even the owner, by and by";
    EXPECT_EQ(one("SELECT count(*) FROM audit_personal"), "3");
  }
  EXPECT_THROW(run(as(eraser), "CREATE TEMPORARY TABLE audit_chain_head AS SELECT '{}'::json AS state; DELETE FROM audit_personal"),
               pqxx::sql_error);
  for (const Json& scope :
       {Json::object().set("subject", his), rows_of("18", "99"), rows_of("1", "17"), Json::object().set("agent", "a"), Json()}) {
    hold(scope);
    EXPECT_EQ(erasing->erase(of("user:ada")).value(), 2) << canonical(scope);
    ASSERT_TRUE(ours->add({rows[0].subject == "user:ada" ? rows[0] : rows[1], rows[2].subject == "user:ada" ? rows[2] : rows[1]}));
  }
}

TEST_F(AuditPostgres, OnlyOneWrites) {
  auto old_owner = open_postgres_sink(url_);
  ChainState state = old_owner->take_over(signer_->key()).value();
  const std::vector<Record> records = make_records(30);
  ASSERT_TRUE(append(*old_owner, slice(records, 0, 10), state));
  auto new_owner = open_postgres_sink(url_);
  ChainState taken = new_owner->take_over(signer_->key()).value();
  EXPECT_EQ(taken, state);
  ChainState late = state;
  EXPECT_EQ(append(*old_owner, slice(records, 10, 20), late).error().code, Errc::kFenced);
  ASSERT_TRUE(append(*new_owner, slice(records, 10, 20), taken));
  EXPECT_EQ(append(*old_owner, slice(records, 10, 20), late).error().code, Errc::kFenced)
      << "not even when it would write the same";
  EXPECT_EQ(one("SELECT count(*) FROM audit_log"), "20");
  EXPECT_TRUE(verify().verified());
  auto other = test_signer(dir_, "other");
  EXPECT_EQ(open_postgres_sink(url_)->take_over({signer_->key().signer_id, other->key().public_key, "ed25519"}).error().code,
            Errc::kRefused)
      << "an id is never reused";
}

TEST_F(AuditPostgres, TwoProjectorsOneChain) {
  PartitionLog log;
  const std::vector<Record> records = make_records(3000, 11);
  log.append_all(records);
  AuditProjectorOptions options;
  options.batch_rows_max = 50;
  options.dead_letter = [](const RecordView&, Reason, std::string_view) -> Result<void> { return {}; };
  auto sink_a = open_postgres_sink(url_), sink_b = open_postgres_sink(url_);
  AuditProjector a(log, *sink_a, signer_, options), b(log, *sink_b, signer_, options);
  std::atomic<bool> stop{false};
  Result<void> ended_a, ended_b;
  std::thread run_a([&] { ended_a = a.run(stop); });
  while (a.counters().batches == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::thread run_b([&] { ended_b = b.run(stop); });
  run_a.join();
  EXPECT_FALSE(ended_a);
  EXPECT_EQ(ended_a.error().code, Errc::kFenced) << ended_a.error().message;
  while (b.position().value < log.end()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stop = true;
  run_b.join();
  EXPECT_TRUE(ended_b);
  EXPECT_EQ(a.counters().rows + b.counters().rows, 3000) << "each row by one of them";
  ChainState expected;
  make_rows(records, *signer_, expected);
  EXPECT_EQ(read_database_head(url_)->state, expected);
  EXPECT_TRUE(verify().verified());
}

TEST_F(AuditPostgres, ALostCommitIsFoundOutNotRepeated) {
  pqxx::connection direct(url_);
  CuttingProxy proxy("127.0.0.1", std::atoi(direct.port()));
  const std::string through =
      with_parameters(url_, "host=127.0.0.1&port=" + std::to_string(proxy.port()) + "&sslmode=disable&gssencmode=disable");
  auto sink = open_postgres_sink(through);
  ChainState state = sink->take_over(signer_->key()).value();
  const std::vector<Record> records = make_records(40);
  size_t from = 0;
  int64_t stored = 0;
  for (auto cut : {CuttingProxy::Cut::kBeforeAnswer, CuttingProxy::Cut::kBeforeCommit, CuttingProxy::Cut::kBeforeAnswer}) {
    const std::vector<Record> batch = slice(records, from, from + 10);
    from += 10;
    proxy.arm(cut);
    Result<void> lost = append(*sink, batch, state);
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::kUnreachable) << lost.error().message;
    if (cut == CuttingProxy::Cut::kBeforeAnswer) {
      EXPECT_EQ(one("SELECT count(*) FROM audit_log"), std::to_string(stored + 10)) << "it did happen";
    }
    Result<void> again = append(*sink, batch, state);
    ASSERT_TRUE(again) << again.error().message;
    stored += 10;
    EXPECT_EQ(one("SELECT count(*) FROM audit_log"), std::to_string(stored)) << "once";
  }
  EXPECT_EQ(proxy.cuts(), 3);
  EXPECT_TRUE(verify().verified());
  // A lost answer and then a new owner: the old one must not take the new one's state for its own.
  proxy.arm(CuttingProxy::Cut::kBeforeAnswer);
  const std::vector<Record> batch = slice(records, 30, 40);
  ASSERT_FALSE(append(*sink, batch, state));
  auto new_owner = open_postgres_sink(url_);
  EXPECT_EQ(new_owner->take_over(signer_->key())->sequence, 40);
  EXPECT_EQ(append(*sink, batch, state).error().code, Errc::kFenced);
}

TEST_F(AuditPostgres, ALostCommitIsFoundOutBehindTheLockOfItsBackend) {
  pqxx::connection direct(url_);
  CuttingProxy proxy("127.0.0.1", std::atoi(direct.port()));
  const std::string through =
      with_parameters(url_, "host=127.0.0.1&port=" + std::to_string(proxy.port()) + "&sslmode=disable&gssencmode=disable");
  auto sink = open_postgres_sink(through);
  ChainState state = sink->take_over(signer_->key()).value();
  const std::vector<Record> records = make_records(40);
  size_t from = 0;
  for (auto cut : {CuttingProxy::Cut::kHeldThenCommitted, CuttingProxy::Cut::kHeldThenEnded}) {
    const std::vector<Record> batch = slice(records, from, from + 10);
    from += 10;
    proxy.arm(cut);
    ASSERT_EQ(append(*sink, batch, state).error().code, Errc::kUnreachable);
    // The old backend is in the midst of its transaction: nobody can know yet what becomes of it, so the next try has to wait.
    std::atomic<bool> done{false};
    Result<void> again;
    std::thread retry([&] {
      again = append(*sink, batch, state);
      done = true;
    });
    const std::string waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND "
        "application_name = "
        "'assay'";
    for (int looks = 0; one(waiting) != "1" && looks < 2000; ++looks) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(one(waiting), "1") << "it waits for the row";
    EXPECT_FALSE(done);
    EXPECT_EQ(one("SELECT count(*) FROM audit_log"), std::to_string(from - 10));
    proxy.let_go();
    retry.join();
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(one("SELECT count(*) FROM audit_log"), std::to_string(from)) << "once";
  }
  EXPECT_EQ(proxy.cuts(), 2);
  EXPECT_TRUE(verify().verified());
  // Committed late, and then taken over: that it was done helps the old owner to nothing.
  const std::vector<Record> batch = slice(records, 20, 30);
  proxy.arm(CuttingProxy::Cut::kHeldThenCommitted);
  ASSERT_FALSE(append(*sink, batch, state));
  proxy.let_go();
  auto new_owner = open_postgres_sink(url_);
  EXPECT_EQ(new_owner->take_over(signer_->key())->sequence, 30) << "it waits for the row as well";
  EXPECT_EQ(append(*sink, batch, state).error().code, Errc::kFenced);
}

TEST_F(AuditPostgres, AFencedWriterLearnsItFromItsFirstStatement) {
  auto old_owner = open_postgres_sink(url_);
  ChainState state = old_owner->take_over(signer_->key()).value();
  const std::vector<Record> records = make_records(30);
  ASSERT_TRUE(append(*old_owner, slice(records, 0, 10), state));
  auto new_owner = open_postgres_sink(url_);
  ChainState taken = new_owner->take_over(signer_->key()).value();
  // Nobody gets at the rows now: who wanted to write them before he looks whose the chain is would wait, and be told that.
  pqxx::connection other(url_);
  pqxx::work holding(other);
  holding.exec("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE");
  ChainState late = state;
  EXPECT_EQ(append(*old_owner, slice(records, 10, 20), late).error().code, Errc::kFenced);
  holding.abort();
  ASSERT_TRUE(append(*new_owner, slice(records, 10, 20), taken));
  EXPECT_EQ(one("SELECT count(*) FROM audit_log"), "20");
}

TEST_F(AuditPostgres, ProjectorOutlivesKilledBackends) {
  PartitionLog log;
  const std::vector<Record> records = make_records(2000, 12);
  log.append_all(records);
  AuditProjectorOptions options;
  options.batch_rows_max = 20;
  options.retry_min = Milliseconds(5);
  options.dead_letter = [](const RecordView&, Reason, std::string_view) -> Result<void> { return {}; };
  auto sink = open_postgres_sink(with_parameters(url_, "application_name=audit_victim"));
  AuditProjector projector(log, *sink, signer_, options);
  std::atomic<bool> stop{false};
  Result<void> ended;
  std::thread thread([&] { ended = projector.run(stop); });
  while (projector.counters().batches == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (int kills = 0; projector.position().value < log.end(); ++kills) {
    if (kills < 8) run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'audit_victim'");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_LT(kills, 3000);
  }
  stop = true;
  thread.join();
  EXPECT_TRUE(ended);
  EXPECT_GT(projector.counters().retries, 0);
  ChainState expected;
  make_rows(records, *signer_, expected);
  EXPECT_EQ(read_database_head(url_)->state, expected);
  EXPECT_TRUE(verify().verified());
}

TEST_F(AuditPostgres, VerifyNamesTheRowThatWasTouched) {
  auto sink = open_postgres_sink(url_);
  ChainState state = sink->take_over(signer_->key()).value();
  const std::vector<Record> records = make_records(50, 13);
  ASSERT_TRUE(append(*sink, records, state));
  const std::string head = one("SELECT state::text FROM audit_chain_head");
  run("CREATE TABLE kept AS SELECT * FROM audit_log");
  const std::vector<std::tuple<std::string, int64_t, std::string>> cases = {
      {"UPDATE audit_log SET payload = replace(payload::text, 'agent-', 'Agent-')::json WHERE sequence = 7", 7, "hash"},
      {"UPDATE audit_log SET created_at = created_at + interval '1 microsecond' WHERE sequence = 50", 50, "created_at"},
      {"UPDATE audit_log SET created_at = 'infinity' WHERE sequence = 50", 50, "form"},
      {"UPDATE audit_log SET event_type = 'x' WHERE sequence = 1", 1, "metadata"},
      {"UPDATE audit_log SET id = 'av-00000000000000000000000000000000' WHERE sequence = 9", 9, "metadata"},
      {"UPDATE audit_log SET signer_kid = 'x' WHERE sequence = 9", 9, "signature"},
      {"UPDATE audit_log SET signer_kid = NULL WHERE sequence = 9", 9, "form"},
      {"UPDATE audit_log SET signature = upper(signature) WHERE sequence = 9", 9, "signature"},
      {"UPDATE audit_log SET prev_hash = NULL WHERE sequence = 9", 9, "hash"},
      {"UPDATE audit_log SET hash = upper(hash) WHERE sequence = 9", 9, "form"},
      {"DELETE FROM audit_log WHERE sequence = 20", 21, "sequence"},
      {"DELETE FROM audit_log WHERE sequence = 1", 2, "sequence"},
      {"DELETE FROM audit_log WHERE sequence = 50", 0, "rows"},
      {"DELETE FROM audit_log", 0, "rows"},
      {"DELETE FROM audit_log WHERE sequence = 50; UPDATE audit_chain_head SET state = (replace(state::text, "
       "'\"sequence\":\"50\"', '\"sequence\":\"49\"'))::json",
       0, "head"},
  };
  for (const auto& [sql, sequence, check] : cases) {
    run(sql);
    const VerifyReport report = verify();
    ASSERT_EQ(report.exit_code(), 4) << sql;
    EXPECT_EQ(report.findings.front().sequence, sequence) << sql << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().check, check) << sql << "\n" << to_text(report);
    EXPECT_TRUE(sequence == 0 || check == "sequence" || report.rows == sequence - 1) << sql;
    run("TRUNCATE audit_log; INSERT INTO audit_log SELECT * FROM kept; UPDATE audit_chain_head SET state = '" + head + "'");
    ASSERT_TRUE(verify().verified()) << "put back after " << sql;
  }
  // Another text of the same canonical payload is what was signed; it is proven, and told.
  run("UPDATE audit_log SET payload = (payload::text || ' ')::json WHERE sequence = 7");
  const VerifyReport report = verify();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.equivalent_rows, 1);
  EXPECT_NE(report.first_equivalent.find("7"), std::string::npos) << report.first_equivalent;
}

TEST_F(AuditPostgres, AnEmptyOrForeignDatabaseIsNoProof) {
  EXPECT_EQ(open_database_chain(url_).error().code, Errc::kIncomplete) << "no chain here";
  ASSERT_TRUE(migrate_database(url_));
  EXPECT_EQ(verify().exit_code(), 8) << "no row";
  EXPECT_EQ(open_database_chain("postgresql://127.0.0.1:1/none").error().code, Errc::kUnreachable);
}

}  // namespace
}  // namespace assay::testing
