// The simulator as a tool: the same seed gives the same bytes, a failure is shrunk and repeated by its command, and nothing that a
// release is made of has a planted bug.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace assay::simulation {
namespace {

const std::string kBin = ASSAY_BINARY_DIR "/bin/";

std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  char part[65536];
  for (size_t n; (n = fread(part, 1, sizeof part, pipe)) > 0;) out.append(part, n);
  pclose(pipe);
  return out;
}

TEST(Simulator, TheSameSeedGivesTheSameBytes) {
  std::string all;
  for (int seed = 1; seed <= 40; ++seed) {
    const std::string command = kBin + "simulator --trace --seed " + std::to_string(seed);
    const std::string once = output_of(command), again = output_of(command);
    EXPECT_THAT(once, testing::AnyOf(testing::EndsWith(": everything holds\n"), testing::EndsWith(": halted by name\n"))) << seed;
    EXPECT_EQ(once, again) << seed;
    EXPECT_FALSE(all.ends_with(once)) << seed;
    all += once;
  }
  for (const char* happened : {"start 1", "crash@", "lost_answer@", "task.recovered", "commit.acknowledged", "commit.retried"})
    EXPECT_THAT(all, testing::HasSubstr(happened));
}

TEST(Simulator, WhatFailedOnceHolds) {
  for (const char* schedule : {
           // A store was found damaged just after a commit whose manifest did not show yet although its offsets did.
           "--seed 1492 --reports 8 --only slow_markers@28,slow_markers@35,bit_flip@2",
           // A projector that was stopped while the database was away passed over the rows that it had not stored.
           "--seed 18270 --reports 10 --only power_loss@1,rebalance@1,database_down@1",
           // Everything was committed before, and the tasks still belonged to a process that had crashed.
           "--seed 17198 --reports 3 --only crash@1,crash@2,crash@3",
           // The simulated log forgot a marker that a torn transaction was still to show, and opened no writer any more.
           "--seed 56308 --reports 8 --only unreachable@1,late_end@2,torn_txn@16,slow_markers@55",
       })
    EXPECT_THAT(output_of(kBin + "simulator --standbys 0 " + schedule), testing::EndsWith(": everything holds\n"));
  for (const char* schedule : {
           // The log lost the records of rows that waited for their signer.
           "--seed 13632 --reports 15 --only truncation@1,signer_down@2",
       })
    EXPECT_THAT(output_of(kBin + "simulator --standbys 0 " + schedule), testing::EndsWith(": halted by name\n"));
}

TEST(Simulator, AFailureIsShrunkAndItsCommandRepeatsIt) {
  const std::string told = output_of(kBin + "simulator_with_bugs --plant failed_commit --seeds 2000");
  const size_t shrunk = told.find("  shrunk to "), repeat = told.find("  repeat: simulator_with_bugs ");
  ASSERT_NE(shrunk, std::string::npos) << told;
  ASSERT_NE(repeat, std::string::npos) << told;
  const size_t begin = repeat + std::string("  repeat: ").size();
  const std::string command = kBin + told.substr(begin, told.find('\n', begin) - begin);
  const size_t trace_at = told.find('\n', shrunk) + 1;
  const std::string trace = told.substr(trace_at, repeat - trace_at);

  const std::string once = output_of(command), again = output_of(command);
  EXPECT_EQ(once, again);
  EXPECT_TRUE(once.starts_with(trace)) << command;
  EXPECT_THAT(once.substr(trace.size()), testing::Not(testing::HasSubstr("everything holds")));
  // Nothing but lost answers, and few of them, make a commit look failed that was none.
  const std::string left = command.substr(command.find("--only "), command.find(" --plant") - command.find("--only "));
  EXPECT_LE(std::ranges::count(left, '@'), 2) << command;
  EXPECT_THAT(command, testing::AnyOf(testing::HasSubstr("lost_answer@"), testing::HasSubstr("late_end@"),
                                      testing::HasSubstr("unreachable@")));
}

TEST(Simulator, OnlyItsOwnBinaryHasPlantedBugs) {
  auto symbols = [](const std::string& binary) { return output_of("nm -C " + kBin + binary); };
  EXPECT_THAT(symbols("simulator_with_bugs"), testing::HasSubstr("planted_bug"));
  for (const char* binary : {"assay", "assay-verify", "simulator"}) {
    const std::string found = symbols(binary);
    EXPECT_THAT(found, testing::HasSubstr(" main")) << binary;
    EXPECT_EQ(found.find("planted"), std::string::npos) << binary;
  }
}

}  // namespace
}  // namespace assay::simulation
