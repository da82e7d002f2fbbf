// Every group of commands, each in the file of its name.
#pragma once

#include "tools/cli.h"

namespace assay::tools {

void register_generate(Command& root);
void register_produce(Command& root);
void register_config(Command& root);
void register_topics(Command& root);
void register_dlq(Command& root);
void register_doctor(Command& root);
void register_run(Command& root);
void register_queries(Command& root);
void register_recommit(Command& state);
void register_audit(Command& root);
void register_audit_control(Command& audit);  // below `audit`
void register_corrections(Command& audit);    // below `audit`
void register_checkpoints(Command& audit);    // below `audit`
void register_witness(Command& root);
void register_replay(Command& root);
void register_scenario(Command& root);
void register_replay_plan(Command& replay);
void register_replay_promote(Command& replay);
void register_replay_score(Command& replay);
void register_replay_explain(Command& replay);
void register_replay_what_if(Command& replay);
void register_replay_backfill(Command& replay);

}  // namespace assay::tools
