// The command line: exit codes, hints, help, and settings from every side.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tools/cli.h"
#include "tools/net_probe.h"

namespace assay::tools {
namespace {

using ::testing::HasSubstr;

struct Seen {
  std::string text;
  int64_t number = 0;
  std::vector<std::string> list;
  bool flag = false;
  std::string grace, data_dir;
  Format format = Format::kTable;
};
Seen seen;

void register_probe(Command& root) {
  seen = {};
  Command probe = root.command("probe", "Look at what arrives");
  probe.example("assay probe one --number 3")
      .argument("TEXT", seen.text, "Some text")
      .option("--number", seen.number, "A number")
      .option("--list", seen.list, "Several")
      .flag("--flag", seen.flag, "Yes");
  probe.run([](Context& context) -> Result<int> {
    seen.format = context.format;
    seen.data_dir = context.settings.data_dir;
    context.out << "done\n";
    if (seen.text == "fail") return Error{Errc::kUnreachable, "reach the moon: it is far"};
    return seen.text == "three" ? 3 : 0;
  });
  Command group = root.command("group", "Some commands");
  Command safe = group.command("safe", "Works without guards").unguarded();
  safe.run([](Context&) { return 0; });
  group.command("other", "Another").run([](Context&) { return 0; });
}

struct Outcome {
  int code;
  std::string out, err;
};
Outcome run(const std::vector<std::string>& arguments, const Environment& environment = {}) {
  std::ostringstream out, err;
  const int code = run_cli(arguments, environment, {register_probe}, out, err);
  return {code, out.str(), err.str()};
}

TEST(Cli, GlobalFlagsStandBeforeOrAfterTheCommand) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"-o", "json", "--data-dir", "d", "--set", "scoring.grace=10m", "probe", "x", "--number", "7", "--flag"},
           {"probe", "x", "--number", "7", "--flag", "-o", "json", "--data-dir", "d", "--set", "scoring.grace=10m"},
           {"--set", "scoring.grace=10m", "--set", "log.level=warn", "probe", "--flag", "--number=7", "x", "--output", "json",
            "--data-dir=d"}}) {
    const Outcome outcome = run(arguments);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "done\n");
    EXPECT_EQ(seen.text, "x");
    EXPECT_EQ(seen.number, 7);
    EXPECT_TRUE(seen.flag);
    EXPECT_EQ(seen.format, Format::kJson);
    EXPECT_EQ(seen.data_dir, "d");
  }
}

TEST(Cli, AnOptionThatMayBeGivenOftenTakesOneValueEachTime) {
  EXPECT_EQ(run({"probe", "--list", "a", "x", "--list", "b"}).code, 0);
  EXPECT_EQ(seen.list, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(seen.text, "x");
}

TEST(Cli, UnknownWordsExitTwoWithTheNearest) {
  EXPECT_EQ(run({"prob"}).code, 2);
  EXPECT_THAT(run({"prob"}).err, HasSubstr("unknown command \"prob\"; did you mean \"probe\"?"));
  EXPECT_THAT(run({"xyz"}).err, HasSubstr("known: probe, group"));
  EXPECT_EQ(run({"group", "saef"}).code, 2);
  EXPECT_THAT(run({"group", "saef"}).err, HasSubstr("did you mean \"safe\"?"));
  EXPECT_THAT(run({"group", "saef"}).err, HasSubstr("See: assay group --help"));
  EXPECT_EQ(run({"probe", "--numbre", "3"}).code, 2);
  EXPECT_THAT(run({"probe", "x", "--numbre=3"}).err, HasSubstr("unknown flag --numbre=3; did you mean --number?"));
  EXPECT_THAT(run({"probe", "--databse-url", "x"}).err, HasSubstr("did you mean --database-url?"));
  EXPECT_EQ(run({"probe", "--number", "many"}).code, 2);
  EXPECT_EQ(run({"-o", "yaml", "probe"}).code, 2);
  EXPECT_EQ(run({}).code, 2);
  EXPECT_EQ(run({"group"}).code, 2);
  EXPECT_EQ(run({"prob"}).out, "");
}

TEST(Cli, HelpBeginsWithExamples) {
  const Outcome outcome = run({"probe", "--help"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_LT(outcome.out.find("assay probe one --number 3"), outcome.out.find("Usage:"));
  EXPECT_THAT(outcome.out, HasSubstr("Look at what arrives"));
  EXPECT_THAT(run({"--help"}).out, HasSubstr("probe"));
  EXPECT_EQ(run({"--version"}).code, 0);
  EXPECT_THAT(run({"--version"}).out, ::testing::MatchesRegex("assay [0-9.]+\n"));
}

TEST(Cli, ErrorsAndVerdictsBecomeExitCodes) {
  EXPECT_EQ(run({"probe", "fail"}).code, 6);
  EXPECT_EQ(run({"probe", "fail"}).err, "assay: reach the moon: it is far\n");
  EXPECT_EQ(run({"probe", "three"}).code, 3);
  EXPECT_EQ(run({"--set", "promotion.entre=1", "probe"}).code, 2);
  EXPECT_THAT(run({"--set", "promotion.entre=1", "probe"}).err, HasSubstr("did you mean \"enter\"?"));
}

TEST(Cli, GuardsStopAllButWhatIsSafe) {
  const Environment production = {{"NODE_ENV", "production"}, {"DEV_SKIP_MTLS", "true"}};
  EXPECT_EQ(run({"probe"}, production).code, 5);
  EXPECT_EQ(run({"probe"}, production).out, "");
  EXPECT_THAT(run({"probe"}, production).err, HasSubstr("DEV_SKIP_MTLS"));
  EXPECT_EQ(run({"group", "safe"}, production).code, 0);
  EXPECT_EQ(run({"probe", "--help"}, production).code, 0);
}

TEST(Cli, ResultsThatCannotBeWrittenAreAnError) {
  std::ostringstream err;
  std::ostream full(nullptr);  // takes nothing
  EXPECT_EQ(run_cli({"probe"}, {}, {register_probe}, full, err), 1);
  EXPECT_THAT(err.str(), HasSubstr("stdout"));
}

TEST(DatabaseAddress, OfEveryForm) {
  auto text = [](std::string_view url) {
    const HostPort address = database_address(url);
    return address.host + " " + address.port;
  };
  EXPECT_EQ(text("postgresql://u:p@db.example:6432/eval?sslmode=require"), "db.example 6432");
  EXPECT_EQ(text("postgresql://db/eval"), "db 5432");
  EXPECT_EQ(text("postgresql:///eval"), "localhost 5432");
  EXPECT_EQ(text("postgresql://u@[::1]:7/x"), "::1 7");
  EXPECT_EQ(text("postgresql:///x?user=a&host=/run/pg&port=9"), "/run/pg 9");
  EXPECT_EQ(text("host=h port=8 dbname=x"), "h 8");
  EXPECT_EQ(text("dbname=x"), "localhost 5432");
}

}  // namespace
}  // namespace assay::tools
