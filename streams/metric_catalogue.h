// Every metric by name, with its help, labels and whether it counts a failure; alerts and runbooks are checked against this list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace assay::streams {

enum class Metric : uint8_t {
  // names that other systems know
  kSubmissions,
  kSubmissionLatency,
  kPromotions,
  kPromotionLatency,
  kPolicyDenials,
  kPolicyDecisions,
  kAllocations,
  kAllocationLatency,
  kAuditPending,
  // tasks
  kDelivered,
  kUnknownFields,
  kFiltered,
  kDeadLetters,
  kCommits,
  kCommitLatency,
  kCommitsAborted,
  kCommitsAmbiguous,
  kFenced,
  kHalts,
  kTaskHalted,
  kToldOtherwise,
  kCatchUpRecords,
  kRestores,
  kStoreWriteFailures,
  kCheckpointInstant,
  kCheckpointSize,
  kCheckpointFailures,
  kStandbyLag,
  kStandbyTakeovers,
  kLogErrors,
  kConfigRejected,
  // the audit chain
  kAuditRows,
  kProjectorErrors,
  kProjectorFenced,
  kSignerFailures,
  kAuditHeld,
  kAuditKeyOverdue,
  kAuditArchivedRows,
  kAuditArchiveUploadFailures,
  kAuditCheckpoints,
  kAuditCheckpointRows,
  kAuditCheckpointErrors,
  kAuditWitnessFailures,
  // the archive
  kArchiveRecords,
  kArchiveBytes,
  kArchiveSegments,
  kArchiveErrors,
  kArchiveHalted,
  // lag and pools
  kLagRecords,
  kLagSeconds,
  kLagTimeLeft,
  kLagUnhealthy,
  kQueueDepth,
  kPoolCapacity,
  kPoolUsed,
  kPoolReserved,
  kPoolWaiting,
  // memory
  kMemoryBudget,
  kMemoryUsed,
  // the front door
  kHttpRequests,
  kHttpRefused,
};
constexpr size_t kMetricCount = static_cast<size_t>(Metric::kHttpRefused) + 1;

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };
constexpr size_t kMaxLabels = 4;

struct MetricSpec {
  Metric metric;
  std::string_view name;
  MetricKind kind;
  bool failure;                         // something went wrong: an alert must watch it
  std::string_view labels[kMaxLabels];  // in the order in which values are given; unused ones are empty
  std::string_view help;

  constexpr size_t label_count() const {
    size_t n = 0;
    while (n < kMaxLabels && !labels[n].empty()) ++n;
    return n;
  }
};

// The tests of alerts and runbooks read this table as text: an entry keeps this order.
// clang-format off
inline constexpr MetricSpec kMetricCatalogue[] = {
  {Metric::kSubmissions, "eval_engine_eval_submissions_total", MetricKind::kCounter, false, {"outcome"},
   "Reports folded by what became of them: accepted, filtered, dead_letter."},
  {Metric::kSubmissionLatency, "eval_engine_eval_submission_latency_seconds", MetricKind::kHistogram, false, {},
   "From the record timestamp of a report to the acknowledgement of the commit that folded it."},
  {Metric::kPromotions, "eval_engine_promotions_total", MetricKind::kCounter, false, {"status", "policy"},
   "Promotion events by status and deciding policy."},
  {Metric::kPromotionLatency, "promotion_latency_seconds", MetricKind::kHistogram, false, {},
   "From the record timestamp of the closed score that waited longest to the commit that holds promotion events."},
  {Metric::kPolicyDenials, "eval_engine_promotion_policy_denials_total", MetricKind::kCounter, true, {"policy_id"},
   "Promotions and grants that the policy gate denied."},
  {Metric::kPolicyDecisions, "sentinel_decisions_total", MetricKind::kCounter, false, {"decision", "policy_id", "severity"},
   "Decisions of the policy gate."},
  {Metric::kAllocations, "allocator_allocations_total", MetricKind::kCounter, false, {"pool", "state"},
   "Allocation events by pool and state."},
  {Metric::kAllocationLatency, "allocator_allocation_latency_seconds", MetricKind::kHistogram, false, {},
   "From the record timestamp of the promotion event that waited longest to the commit that holds allocation events."},
  {Metric::kAuditPending, "audit_stager_pending", MetricKind::kGauge, true, {},
   "Audit rows that wait for a signer or a database that does not answer, so that nobody sees them yet."},
  {Metric::kDelivered, "assay_records_delivered_total", MetricKind::kCounter, false, {"task"},
   "Input records that a task committed: accepted + filtered + dead letters."},
  {Metric::kUnknownFields, "assay_unknown_fields_total", MetricKind::kCounter, false, {"task"},
   "Fields of accepted reports that no schema names."},
  {Metric::kFiltered, "assay_records_filtered_total", MetricKind::kCounter, true, {"task", "reason"},
   "Sound records that are not to be counted: duplicates and late ones."},
  {Metric::kDeadLetters, "assay_dead_letters_total", MetricKind::kCounter, true, {"topic", "reason"},
   "Records that could not be processed, by source topic and reason code."},
  {Metric::kCommits, "assay_commits_total", MetricKind::kCounter, false, {"task"},
   "Commits acknowledged by the log."},
  {Metric::kCommitLatency, "assay_commit_seconds", MetricKind::kHistogram, false, {"processor"},
   "Time of one commit: prepare, acknowledgement and store write."},
  {Metric::kCommitsAborted, "assay_commits_aborted_total", MetricKind::kCounter, true, {"task"},
   "Commits that did not happen; their records were folded again."},
  {Metric::kCommitsAmbiguous, "assay_commits_ambiguous_total", MetricKind::kCounter, true, {"task"},
   "Commits whose answer was lost; the committed offsets decided what had happened."},
  {Metric::kFenced, "assay_tasks_fenced_total", MetricKind::kCounter, true, {"task"},
   "Tasks that stopped because a newer owner took over."},
  {Metric::kHalts, "assay_halts_total", MetricKind::kCounter, true, {"task", "halt"},
   "Tasks that stopped at a named halt."},
  {Metric::kTaskHalted, "assay_task_halted", MetricKind::kGauge, true, {"task", "halt"},
   "1 while a task stands at a named halt."},
  {Metric::kToldOtherwise, "assay_told_otherwise_total", MetricKind::kCounter, true, {"task"},
   "Records that their writer told twice and not the same both times; the first was folded."},
  {Metric::kCatchUpRecords, "assay_catch_up_records_total", MetricKind::kCounter, true, {"task"},
   "Records folded again with outputs suppressed, because the store was behind the log."},
  {Metric::kRestores, "assay_restores_total", MetricKind::kCounter, true, {"task", "from"},
   "Stores that were put aside because they were damaged, gone or not the log's, by what came instead: checkpoint, nothing."},
  {Metric::kStoreWriteFailures, "assay_store_write_failures_total", MetricKind::kCounter, true, {"task"},
   "Batches that the store did not take."},
  {Metric::kCheckpointInstant, "assay_checkpoint_timestamp_seconds", MetricKind::kGauge, false, {"task"},
   "Instant of the commit that the newest checkpoint of a store was taken after."},
  {Metric::kCheckpointSize, "assay_checkpoint_bytes", MetricKind::kGauge, false, {"task"},
   "Size of the newest checkpoint of a store; most of it is shared with the store."},
  {Metric::kCheckpointFailures, "assay_checkpoint_failures_total", MetricKind::kCounter, true, {"task"},
   "Checkpoints that could not be taken; the task went on without."},
  {Metric::kStandbyLag, "assay_standby_lag_manifests", MetricKind::kGauge, true, {"task"},
   "Commits that the copy of another process's store had not folded yet when it looked last."},
  {Metric::kStandbyTakeovers, "assay_standby_takeovers_total", MetricKind::kCounter, false, {"task"},
   "Tasks that came to this process and found a copy of their store here."},
  {Metric::kLogErrors, "assay_log_errors_total", MetricKind::kCounter, true, {"task", "error"},
   "Reads and writes that the log refused or did not answer."},
  {Metric::kConfigRejected, "assay_config_rejected_total", MetricKind::kCounter, true, {},
   "Records of config.v1 that were not understood; the earlier rules stayed."},
  {Metric::kAuditRows, "assay_audit_rows_total", MetricKind::kCounter, false, {},
   "Rows appended to the audit chain."},
  {Metric::kProjectorErrors, "assay_projector_errors_total", MetricKind::kCounter, true, {"error"},
   "Batches of audit rows that the database or the archive did not take."},
  {Metric::kProjectorFenced, "assay_projector_fenced_total", MetricKind::kCounter, true, {},
   "Projectors that stopped because the chain has a newer writer."},
  {Metric::kSignerFailures, "assay_signer_failures_total", MetricKind::kCounter, true, {"signer"},
   "Signatures that a signer refused or did not give."},
  {Metric::kAuditHeld, "assay_audit_held", MetricKind::kGauge, true, {"by"},
   "1 while somebody has it so: paused (the projector holds), safe_mode (nothing is signed), emergency (another key signs)."},
  {Metric::kAuditKeyOverdue, "assay_audit_key_overdue_seconds", MetricKind::kGauge, true, {},
   "How long ago the next step of the key's rotation was due; 0 when none is."},
  {Metric::kAuditArchivedRows, "assay_audit_archived_rows_total", MetricKind::kCounter, false, {},
   "Signed audit rows that this process has stored in the archive."},
  {Metric::kAuditArchiveUploadFailures, "audit_archive_upload_failures_total", MetricKind::kCounter, true, {"error"},
   "Uploads of the audit chain that failed and are tried again: unreachable, refused, other."},
  {Metric::kAuditCheckpoints, "assay_audit_checkpoints_total", MetricKind::kCounter, false, {},
   "Checkpoints of the audit chain that were signed, or got a cosignature later."},
  {Metric::kAuditCheckpointRows, "assay_audit_checkpoint_rows", MetricKind::kGauge, false, {},
   "Rows of the audit chain that the newest checkpoint covers."},
  {Metric::kAuditCheckpointErrors, "assay_audit_checkpoint_errors_total", MetricKind::kCounter, true, {"error"},
   "Checkpoints that were not made or not put everywhere: tampered, refused, unreachable, other."},
  {Metric::kAuditWitnessFailures, "assay_audit_witness_failures_total", MetricKind::kCounter, true, {"witness"},
   "Cosignatures that a witness did not give."},
  {Metric::kArchiveRecords, "assay_archive_records_total", MetricKind::kCounter, false, {"topic"},
   "Records that this process has archived."},
  {Metric::kArchiveBytes, "assay_archive_bytes_total", MetricKind::kCounter, false, {"topic"},
   "Bytes of the segments that hold them, packed."},
  {Metric::kArchiveSegments, "assay_archive_segments_total", MetricKind::kCounter, false, {"topic"},
   "Segments that this process has stored and signed for."},
  {Metric::kArchiveErrors, "assay_archive_errors_total", MetricKind::kCounter, true, {"error"},
   "What the archive, or the log for it, did not do and is tried again: unreachable, refused, other."},
  {Metric::kArchiveHalted, "assay_archive_halted", MetricKind::kGauge, true, {"topic", "partition", "halt"},
   "1 while a partition is not archived any further, by the name of why."},
  {Metric::kLagRecords, "assay_lag_records", MetricKind::kGauge, false, {"topic", "partition", "group"},
   "Records not yet processed, up to the last stable offset."},
  {Metric::kLagSeconds, "assay_lag_seconds", MetricKind::kGauge, false, {"topic", "partition", "group"},
   "Age of the first record not yet processed; 0 when there is none."},
  {Metric::kLagTimeLeft, "assay_lag_retention_left_seconds", MetricKind::kGauge, false, {"topic", "partition", "group"},
   "Until retention takes the first record not yet processed; only where a topic has retention."},
  {Metric::kLagUnhealthy, "assay_lag_unhealthy", MetricKind::kGauge, true, {"topic", "partition", "group", "state"},
   "1 for the state that a partition is in when that is not a healthy one."},
  {Metric::kQueueDepth, "assay_queue_depth_records", MetricKind::kGauge, false, {"group"},
   "Records that a group has not processed yet, over all its partitions: what autoscaling goes by."},
  {Metric::kPoolCapacity, "assay_pool_capacity", MetricKind::kGauge, false, {"pool"},
   "Capacity of a pool in its unit."},
  {Metric::kPoolUsed, "assay_pool_used", MetricKind::kGauge, false, {"pool"},
   "Units of a pool that are applied."},
  {Metric::kPoolReserved, "assay_pool_reserved", MetricKind::kGauge, false, {"pool"},
   "Units of a pool that are reserved and not yet applied."},
  {Metric::kPoolWaiting, "assay_pool_waiting", MetricKind::kGauge, true, {"pool"},
   "Requests that wait for room in a pool."},
  {Metric::kMemoryBudget, "assay_memory_budget_bytes", MetricKind::kGauge, false, {"part"},
   "Shares of the memory budget by part; memtables are at most so much of stores."},
  {Metric::kMemoryUsed, "assay_memory_used_bytes", MetricKind::kGauge, false, {"part"},
   "Memory in use by part; process is what is resident beyond the other parts, those that nobody counts included."},
  {Metric::kHttpRequests, "assay_http_requests_total", MetricKind::kCounter, false, {"code"},
   "HTTP answers by status code."},
  {Metric::kHttpRefused, "assay_http_refused_total", MetricKind::kCounter, true, {"why"},
   "HTTP requests that no handler saw: limit, timeout, too_large, malformed."},
};
// clang-format on

constexpr const MetricSpec& metric_spec(Metric metric) { return kMetricCatalogue[static_cast<size_t>(metric)]; }

consteval bool metric_catalogue_in_order() {
  if (sizeof(kMetricCatalogue) / sizeof(kMetricCatalogue[0]) != kMetricCount) return false;
  for (size_t i = 0; i < kMetricCount; ++i)
    if (kMetricCatalogue[i].metric != static_cast<Metric>(i)) return false;
  return true;
}
static_assert(metric_catalogue_in_order(), "a line of the catalogue for each Metric, in the order of the enum");

}  // namespace assay::streams
