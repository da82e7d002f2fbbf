// assay: one binary, one command a group, wired here.
#include <iostream>

#include "tools/commands.h"
#include "tools/memory_shares.h"

int main(int argc, char** argv) {
  using namespace assay::tools;
  bound_allocator();
  std::ios::sync_with_stdio(false);
  const std::vector<Registration> groups = {register_generate, register_produce, register_run,      register_queries,
                                            register_audit,    register_replay,  register_scenario, register_dlq,
                                            register_config,   register_topics,  register_doctor,   register_witness};
  return run_cli({argv + 1, argv + argc}, process_environment(), groups, std::cout, std::cerr);
}
