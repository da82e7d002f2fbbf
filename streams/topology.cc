#include "streams/topology.h"

#include "processors/allocation.h"
#include "processors/promotion.h"

namespace assay::streams {

std::vector<TopicPartition> ProcessorPlan::input_partitions(const TopicNames& names) const {
  std::vector<TopicPartition> out;
  for (Topic topic : inputs)
    for (int32_t p = 0; p < names.partitions(topic); ++p) out.push_back({names.full(topic), p});
  return out;
}

std::vector<ProcessorPlan> topology(const TopicNames& names, const processors::ScoringOptions& scoring) {
  auto spec = [names](std::string_view processor, int32_t partition, int32_t manifest_partition) {
    TaskSpec s;
    s.name = std::string(processor) + "-" + std::to_string(partition);
    s.processor = processor;
    s.manifest_partition = manifest_partition;
    s.group = names.full("assay." + std::string(processor));
    s.transactional_id = names.full("assay." + s.name);
    return s;
  };
  std::vector<ProcessorPlan> plans(3);

  plans[0].name = "scoring";
  plans[0].inputs = {Topic::kReports};
  plans[0].topics = {names.full(Topic::kReports)};
  plans[0].task = [spec, scoring](int32_t partition) {
    TaskSpec s = spec("scoring", partition, partition);
    s.inputs = {{Topic::kReports, partition}};
    s.row_digest = &processors::scoring_row_digest;
    s.make = [scoring](processors::Rows& rows) { return std::make_unique<processors::Scoring>(rows, scoring); };
    return s;
  };

  plans[1].name = "promotion";
  plans[1].inputs = {Topic::kScores};
  plans[1].topics = {names.full(Topic::kScores)};
  plans[1].task = [spec, names](int32_t partition) {
    TaskSpec s = spec("promotion", partition, names.partitions() + partition);
    s.inputs = {{Topic::kScores, partition}};
    s.make = [](processors::Rows& rows) { return std::make_unique<processors::Promotion>(rows); };
    return s;
  };

  // One task sees every pool whole. Its owner is whoever is given the only partition of config.v1 in its group.
  plans[2].name = "allocation";
  plans[2].inputs = {Topic::kPromotions};
  plans[2].topics = {names.full(Topic::kConfig)};
  plans[2].single_task = true;
  plans[2].task = [spec, names](int32_t) {
    TaskSpec s = spec("allocation", 0, 2 * names.partitions());
    for (int32_t p = 0; p < names.partitions(); ++p) s.inputs.emplace_back(Topic::kPromotions, p);
    s.make = [](processors::Rows& rows) { return std::make_unique<processors::Allocation>(rows); };
    return s;
  };

  for (ProcessorPlan& plan : plans) plan.group = names.full("assay." + plan.name);
  return plans;
}

Result<TaskSpec> find_task(const std::vector<ProcessorPlan>& plans, const TopicNames& names, std::string_view task) {
  for (const ProcessorPlan& plan : plans)
    for (int32_t p = 0; p < plan.task_count(names); ++p)
      if (TaskSpec spec = plan.task(p); spec.name == task) return spec;
  return Error{Errc::kNotFound, "no task " + std::string(task) + " in the topology"};
}

}  // namespace assay::streams
