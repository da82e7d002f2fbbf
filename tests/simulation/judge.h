// The oracle as the simulator's judge, and workloads in the simulator's form.
#pragma once

#include "replay/simulator.h"

namespace assay::simulation {

replay::SimWork make_work(uint64_t seed, size_t size);

/// What is wrong with the outputs and stores of a run, compared with what the oracle makes of its inputs; or nothing.
std::optional<std::string> judge(const replay::SimRemains& remains);

}  // namespace assay::simulation
