#!/bin/bash
# The local broker and database: up, used, down, and gone whatever happens to their caller. Usage: deploy_test.sh SOURCE_DIR
set -uo pipefail
deploy=$1/deploy
work=$(mktemp -d /tmp/assay-deploy-test-XXXXXX)
chmod 755 "$work"
bystander=

fail() { echo "FAILED: $*" >&2; exit 1; }
clean_up() {
  [ -n "$bystander" ] && kill "$bystander" 2>/dev/null
  "$deploy/broker" down "$work/broker" --now
  "$deploy/postgres" down "$work/postgres" --now
  rm -rf "$work"
}
trap clean_up EXIT

# processes_of DIR: how many command lines name it, ourselves left out
processes_of() { { grep -lazF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null || true; } | grep -vc "/proc/$$/" || true; }
wait_gone() {
  for _ in $(seq 100); do
    [ "$(processes_of "$1")" = 0 ] && return
    sleep 0.1
  done
  fail "after 10 s there are still processes of $1: $(grep -lazF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null)"
}
value() { sed -n "s/^$1=//p"; }

echo "-- both at once, used, asked again, down"
"$deploy/broker" up "$work/broker" > "$work/broker.address" &
"$deploy/postgres" up "$work/postgres" > "$work/postgres.address" || fail "postgres up"
wait $! || fail "broker up"
brokers=$(value BROKERS < "$work/broker.address")
url=$(value DATABASE_URL < "$work/postgres.address")
[ "$("$deploy/broker" up "$work/broker")" = "BROKERS=$brokers" ] || fail "a second up does not give the same broker"
[ "$("$deploy/postgres" up "$work/postgres")" = "DATABASE_URL=$url" ] || fail "a second up does not give the same database"
[ "$(processes_of "$work/broker/server.properties")" = 1 ] || fail "a second up started a second broker"
"$deploy/broker" tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$brokers" --create --topic kept --partitions 3 \
  > "$work/topic.out" 2>&1 || fail "creating a topic: $(cat "$work/topic.out")"
echo 'a report' | kcat -P -b "$brokers" -t kept -p 1 || fail "producing"
psql -qX "$url" -c 'create table kept as select 41 + 1 as answer' || fail "creating a table"
[ "$(psql -XAtq "$url" -c 'show fsync')" = on ] || fail "a database that stays must be durable"
owner=$(stat -c %U "$(psql -XAtq "$url" -c 'show data_directory')")
[ "$owner" != root ] || fail "PostgreSQL runs as root"

echo "-- data and port survive a crash and a restart"
[ "$("$deploy/broker" restart "$work/broker" --now)" = "BROKERS=$brokers" ] || fail "restart --now moved the broker"
[ "$("$deploy/postgres" restart "$work/postgres" --now)" = "DATABASE_URL=$url" ] || fail "restart --now moved the database"
[ "$(kcat -C -e -q -b "$brokers" -t kept -p 1)" = 'a report' ] || fail "the record is gone after a crash"
[ "$(psql -XAtq "$url" -c 'select answer from kept')" = 42 ] || fail "the row is gone after a crash"
"$deploy/broker" down "$work/broker" || fail "broker down"
"$deploy/postgres" down "$work/postgres" || fail "postgres down"
[ "$(processes_of "$work/broker")" = 0 ] || fail "down left processes of the broker"
[ "$(processes_of "$work/postgres")" = 0 ] || fail "down left processes of the database"

echo "-- a remembered pid that belongs to somebody else is left alone"
sleep 1000 & bystander=$!
for server in broker postgres; do
  printf '{"pid": %d, "start": 1, "boot": "%s"}' "$bystander" "$(cat /proc/sys/kernel/random/boot_id)" > "$work/$server/pid.json"
  "$deploy/$server" down "$work/$server" || fail "$server down with a foreign pid"
  kill -0 "$bystander" 2>/dev/null || fail "$server down killed a foreign process"
done

echo "-- kill -9 of the caller takes everything along"
"$deploy/with" --broker --database -- bash -c 'env > "$0"; exec sleep 1000' "$work/env" & caller=$!
for _ in $(seq 600); do
  grep -q ASSAY_TEST_DATABASE_DIR "$work/env" 2>/dev/null && break
  kill -0 $caller 2>/dev/null || fail "with ended early"
  sleep 0.1
done
broker_dir=$(value ASSAY_TEST_BROKER_DIR < "$work/env")
database_dir=$(value ASSAY_TEST_DATABASE_DIR < "$work/env")
[ "$(processes_of "$broker_dir")" -ge 2 ] || fail "no broker under with"
command_pid=$(cat "/proc/$caller/task/$caller/children" | tr ' ' '\n' | grep -m1 . )
kill -9 $caller
wait_gone "$broker_dir"
wait_gone "$database_dir"
for _ in $(seq 50); do kill -0 "$command_pid" 2>/dev/null || break; sleep 0.1; done
kill -0 "$command_pid" 2>/dev/null && fail "the command outlived its caller"
for _ in $(seq 50); do [ -e "$broker_dir" ] || [ -e "$database_dir" ] || break; sleep 0.1; done
[ ! -e "$broker_dir" ] && [ ! -e "$database_dir" ] || fail "the temporary directories are left over"

echo "-- kill -9 of the supervisor takes its server along"
"$deploy/postgres" up "$work/postgres" > /dev/null || fail "postgres up"
kill -9 "$(sed 's/.*"pid": \([0-9]*\).*/\1/' "$work/postgres/pid.json")"
wait_gone "$work/postgres/data"
[ "$("$deploy/postgres" up "$work/postgres")" = "DATABASE_URL=$url" ] || fail "up after the supervisor was killed"

echo "-- with gives back the command's exit code, and its servers are throw-away ones"
"$deploy/with" --database -- bash -c 'test "$(psql -XAtq "$ASSAY_TEST_DATABASE_URL" -c "show fsync")" = off && exit 42'
code=$?
[ $code = 42 ] || fail "exit code $code instead of the command's 42"
"$deploy/with" --broker -- false > "$work/false.out" 2>&1
code=$?
[ $code = 1 ] || fail "exit code $code instead of the command's 1: $(cat "$work/false.out")"
"$deploy/with" --nonsense -- true 2> /dev/null
code=$?
[ $code = 2 ] || fail "an unknown flag gives exit code $code instead of 2"
echo "passed"
