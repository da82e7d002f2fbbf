// The tamper matrix on a relation of a real PostgreSQL and on pg_dump's text of it; and signatures that came late, read from a
// dump.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <pqxx/pqxx>

#include "schemas/json_parse.h"
#include "streams/postgres_sink.h"
#include "tests/unit/audit_tamper.h"

namespace assay::testing {
namespace {

/// A database of its own with the chain in it, whose owner is free to do what he likes.
class TamperPostgres : public Tamper {
 protected:
  void SetUp() override {
    Tamper::SetUp();
    const char* url = std::getenv("ASSAY_TEST_DATABASE_URL");
    ASSERT_NE(url, nullptr) << "ASSAY_TEST_DATABASE_URL is not set: run this with `deploy/with --database -- …`";
    server_ = url;
    name_ = "tamper_test_" + std::to_string(::getpid());
    run(server_, "CREATE DATABASE " + name_);
    url_ = server_ + (server_.find('?') == server_.npos ? "?" : "&") + "dbname=" + name_;
    options_.checkpoints = {{"the first one, by mail", read_text(dir_ / "tlog/checkpoints/000000000005.note")},
                            {"the last one, by mail", last_note_}};
  }
  void TearDown() override {
    if (!name_.empty()) run(server_, "DROP DATABASE IF EXISTS " + name_ + " WITH (FORCE)");
  }

  static void run(const std::string& url, const std::string& sql) {
    pqxx::connection connection(url);
    pqxx::nontransaction(connection).exec(sql);
  }
  void run(const std::string& sql) { run(url_, sql); }

  /// Stores the chain as the projector does.
  void store() {
    auto sink = open_postgres_sink(url_);
    const ChainState before = sink->take_over(signer_->key()).value();
    ASSERT_TRUE(sink->append(rows_, before, head_));
  }

  /// Puts these rows in the place of those that are there, numbered as they come; whoever holds the keys sets the head as well.
  void overwrite_relation(const std::vector<std::string>& lines, bool head_too) {
    pqxx::connection connection(url_);
    pqxx::work tx(connection);
    tx.exec("DELETE FROM audit_log");
    for (size_t i = 0; i < lines.size(); ++i) {
      const Json row = parse_json(lines[i]).value();
      auto text = [&](const char* member) -> std::optional<std::string> {
        const Json* value = row.find(member);
        return value->is_null() || (member == std::string("signature") && value->as_string().empty())
                   ? std::nullopt
                   : std::optional(value->as_string());
      };
      const size_t payload = lines[i].find(",\"payload\":") + 11;  // its text, whatever its form
      tx.exec_params("INSERT INTO audit_log VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", i + 1, text("id"), text("event_type"),
                     text("created_at"), lines[i].substr(payload, lines[i].find(",\"prev_hash\":", payload) - payload),
                     text("prev_hash"), text("hash"), text("signature"), text("signer_kid"));
    }
    ChainState head = head_;
    if (head_too) head.head_hash = parse_audit_line(lines.back()).value().row.hash;
    tx.exec_params("UPDATE audit_chain_head SET state = $1", canonical(processors::chain_state_to_json(head)));
    tx.commit();
  }

  VerifyReport verify_relation() { return verify_chain(open_database_chain(url_).value(), options_).value(); }

  /// What assay-verify says of a dump: its exit code and its verdict.
  std::pair<int, Json> verify_dump(const std::string& words = {}) {
    const std::string dump = dir_ / "dump.sql";
    CHECK(std::system(("pg_dump '" + url_ + "' > " + dump).c_str()) == 0);
    std::string command = std::string(ASSAY_BINARY_DIR) + "/bin/assay-verify " + dump + " --json --signers " + dir_ / "pinned.json";
    if (words.empty()) {
      command += " --policy " + dir_ / "policy";
      for (const auto& [place, note] : options_.checkpoints) {
        const std::string file = dir_ / ("note, " + place);
        write_text(file, note);
        command += " --checkpoint '" + file + "'";
      }
    }
    FILE* pipe = ::popen((command + " " + words).c_str(), "r");
    CHECK(pipe != nullptr);
    std::string output;
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
    const int status = ::pclose(pipe);
    return {WEXITSTATUS(status), parse_json(output).value()};
  }

  std::string server_, name_, url_;
};

TEST_F(TamperPostgres, ARelationThatIsChangedAndItsDump) {
  store();
  ASSERT_TRUE(verify_relation().verified()) << to_text(verify_relation());
  EXPECT_EQ(verify_relation().witnessed_rows, kTamperRows);
  EXPECT_EQ(verify_dump().first, 0) << canonical(verify_dump().second);
  EXPECT_EQ(original_of("--database-url '" + url_ + "'"), 0);
  run("ALTER TABLE audit_log DROP CONSTRAINT audit_log_created_at_key");  // as the owner may
  for (const TamperCase& one : cases()) {
    std::vector<std::string> changed = lines();
    one.change(changed);
    overwrite_relation(changed, one.with_key);
    const auto& [check, row, original_rule] = one.stored;
    const VerifyReport report = verify_relation();
    const auto [dump_exit, dump] = verify_dump();
    if (check.empty()) {
      EXPECT_TRUE(report.verified()) << one.what << "\n" << to_text(report);
      EXPECT_EQ(report.equivalent_rows, 1) << one.what;
      EXPECT_EQ(dump_exit, 0) << one.what << "\n" << canonical(dump);
      EXPECT_EQ(dump.string_or("equivalentRows", ""), "1") << one.what;
    } else {
      EXPECT_EQ(report.exit_code(), 4) << one.what << "\n" << to_text(report);
      if (!report.verified()) {
        EXPECT_EQ(report.findings.front().check, check) << one.what << "\n" << to_text(report);
        EXPECT_EQ(report.findings.front().sequence, row) << one.what << "\n" << to_text(report);
      }
      EXPECT_EQ(dump_exit, 4) << one.what << "\n" << canonical(dump);
      const auto& findings = dump.find("findings")->as_array();
      EXPECT_EQ(findings.empty() ? "" : findings.front().string_or("check", ""), check) << one.what << "\n" << canonical(dump);
      EXPECT_EQ(findings.empty() ? "" : findings.front().string_or("sequence", "0"), std::to_string(row)) << one.what << "\n"
                                                                                                          << canonical(dump);
    }
    EXPECT_EQ(original_of("--database-url '" + url_ + "'"), original_rule) << one.what;
    std::printf("  %-58s %-11s row %lld   original: %s\n", one.what, check.empty() ? "equivalent" : check.c_str(),
                static_cast<long long>(row),
                original_rule == 0 ? "sees nothing" : ("rule " + std::to_string(original_rule)).c_str());
  }
}

TEST_F(TamperPostgres, ATailThatIsCutWithItsHeadIsSeenByWhoeverHasACheckpoint) {
  store();
  ChainState head;
  const std::vector<Record> all = records();
  (void)make_rows({all.begin(), all.begin() + 6}, *signer_, head);
  run("DELETE FROM audit_log WHERE sequence > 6");
  run("UPDATE audit_chain_head SET next_offset = 6, state = '" + canonical(processors::chain_state_to_json(head)) + "'");
  const VerifyReport report = verify_relation();
  ASSERT_EQ(report.exit_code(), 4);
  EXPECT_EQ(report.findings.front().check, "checkpoint") << to_text(report);
  EXPECT_EQ(verify_dump().first, 4);
  options_.checkpoints.clear();
  EXPECT_EQ(verify_relation().exit_code(), 8) << "the policy counts no checkpoint of it";
  options_.policy.reset();
  EXPECT_TRUE(verify_relation().verified()) << "the database alone cannot tell";
  EXPECT_NE(sentence(verify_relation()).find("nothing follows row 6 is not proven"), std::string::npos);
}

TEST_F(TamperPostgres, ALateSignatureChangesNothingOfARowThatHasOne) {
  store();
  run("INSERT INTO audit_signatures VALUES (2, 'another', 'another'), (4, '" + rows_[4].signature + "', 'another')");
  EXPECT_TRUE(verify_relation().verified()) << to_text(verify_relation());
  EXPECT_EQ(verify_relation().rows, kTamperRows);
  const auto [exit, verdict] = verify_dump();
  EXPECT_EQ(exit, 0) << canonical(verdict);
  EXPECT_EQ(original_of("--database-url '" + url_ + "'"), 0);
}

TEST_F(TamperPostgres, ADumpIsProvenWithTheSignaturesThatCameLate) {
  auto sink = open_postgres_sink(url_);
  const std::vector<Record> all = records();
  ChainState start = sink->take_over(signer_->key()).value(), third = start, sixth, last;
  const std::vector<SignedRow> first = make_rows({all.begin(), all.begin() + 3}, *signer_, third);
  ASSERT_TRUE(sink->append(first, start, third));
  sixth = third;
  const std::vector<SignedRow> late = make_rows({all.begin() + 3, all.begin() + 6}, *signer_, sixth);
  std::vector<SignedRow> waiting = late;
  for (SignedRow& row : waiting) row.signature.clear();
  ASSERT_TRUE(sink->stage(waiting, third, sixth));
  auto [exit, verdict] = verify_dump("--links");
  EXPECT_EQ(exit, 0) << canonical(verdict);
  EXPECT_EQ(verdict.string_or("rows", ""), "3") << "the others wait for their signatures, and the head says so";
  ASSERT_TRUE(sink->sign(std::span(late).first(2), third, [&] {
    ChainState middle = third;
    (void)make_rows({all.begin() + 3, all.begin() + 5}, *signer_, middle);
    return middle;
  }()));
  EXPECT_EQ(verify_dump("--threads 1").second.string_or("rows", ""), "5");
  EXPECT_EQ(verify_dump("--threads 1").first, 0);
  ASSERT_TRUE(sink->sign(
      std::span(late).subspan(2),
      [&] {
        ChainState middle = third;
        (void)make_rows({all.begin() + 3, all.begin() + 5}, *signer_, middle);
        return middle;
      }(),
      sixth));
  last = sixth;
  const std::vector<SignedRow> rest = make_rows({all.begin() + 6, all.end()}, *signer_, last);
  ASSERT_TRUE(sink->append(rest, sixth, last));
  EXPECT_EQ(last, head_);
  std::tie(exit, verdict) = verify_dump();
  EXPECT_EQ(exit, 0) << canonical(verdict);
  EXPECT_EQ(verdict.string_or("rows", ""), std::to_string(kTamperRows));
  EXPECT_EQ(verdict.string_or("witnessedRows", ""), std::to_string(kTamperRows));
  // Through a pipe the rows have passed when their signatures come.
  const std::string piped = "cat " + dir_ / "dump.sql | " + std::string(ASSAY_BINARY_DIR) + "/bin/assay-verify - --signers " +
                            dir_ / "pinned.json > " + dir_ / "piped";
  EXPECT_EQ(WEXITSTATUS(std::system(piped.c_str())), 8) << read_text(dir_ / "piped");
  EXPECT_NE(read_text(dir_ / "piped").find("give the dump as a file"), std::string::npos) << read_text(dir_ / "piped");
  // A late signature that is wrong, gone in the midst, or gone at the end.
  for (const auto& [sql, exit_code, row] : std::vector<std::tuple<std::string, int, std::string>>{
           {"UPDATE audit_signatures SET signature = (SELECT signature FROM audit_log WHERE sequence = 1) WHERE sequence = 5", 4,
            "5"},
           {"DELETE FROM audit_signatures WHERE sequence = 5", 4, "5"},
           {"DELETE FROM audit_signatures WHERE sequence = 6", 4, "0"},
           {"DELETE FROM audit_signatures", 4, "0"}}) {
    run("CREATE TABLE kept AS SELECT * FROM audit_signatures");
    run(sql);
    std::tie(exit, verdict) = verify_dump("--threads 1");
    EXPECT_EQ(exit, exit_code) << sql << "\n" << canonical(verdict);
    const auto& findings = verdict.find("findings")->as_array();
    EXPECT_EQ(findings.empty() ? "none" : findings.front().string_or("sequence", "0"), row) << sql << "\n" << canonical(verdict);
    const VerifyReport report = verify_chain(open_database_chain(url_).value(), {}).value();
    EXPECT_EQ(report.exit_code(), 4) << sql << ": the database says the same\n" << to_text(report);
    EXPECT_EQ(std::to_string(report.findings.front().sequence), row) << sql << "\n" << to_text(report);
    run("DELETE FROM audit_signatures; INSERT INTO audit_signatures SELECT * FROM kept; DROP TABLE kept");
  }
  // Another order in the table, as a rewrite of it may leave.
  run("CREATE TABLE kept AS SELECT * FROM audit_signatures ORDER BY sequence DESC; DELETE FROM audit_signatures; "
      "INSERT INTO audit_signatures SELECT * FROM kept; DROP TABLE kept");
  EXPECT_EQ(verify_dump().first, 0);
}

}  // namespace
}  // namespace assay::testing
