// The page in the binary is the file, and it loads nothing from elsewhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "tools/console/console.h"

namespace assay::tools {
namespace {

TEST(Console, IsTheFileByteForByte) {
  std::ifstream file(ASSAY_SOURCE_DIR "/tools/console/index.html", std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_EQ(console_page(), text.str());
}

TEST(Console, AsksItsOwnServerAlone) {
  std::string page(console_page());
  EXPECT_FALSE(std::regex_search(page, std::regex(R"(https?://|src=|@import|url\((?!\))|innerHTML)")));
  std::set<std::string> asked;
  std::regex call(R"(['"](api/[a-z]+|health))");
  for (std::sregex_iterator it(page.begin(), page.end(), call), end; it != end; ++it) asked.insert((*it)[1]);
  EXPECT_THAT(asked, testing::ElementsAre("api/lag", "api/pools", "api/promotions", "api/scoreboard", "health"));
}

}  // namespace
}  // namespace assay::tools
