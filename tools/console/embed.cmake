# Writes OUTPUT, a source file that holds the bytes of INPUT: cmake -DINPUT=… -DOUTPUT=… -P embed.cmake
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUTPUT} "#include \"tools/console/console.h\"

namespace assay::tools {
namespace {
constexpr unsigned char kPage[] = {
${bytes}};
}  // namespace
std::string_view console_page() { return {reinterpret_cast<const char*>(kPage), sizeof kPage}; }
}  // namespace assay::tools
")
