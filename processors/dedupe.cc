#include "processors/dedupe.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "state/encoding.h"

namespace assay::processors {
namespace {
constexpr size_t kEntryBytes = 16 + 8 + 3;
}  // namespace

state::Digest Dedupe::entry_digest(std::string_view agent, const Entry& entry) {
  char text[5 + 16 + 8 + 8] = "seen";
  std::memcpy(text + 5, &entry.id_hash, 16);
  std::memcpy(text + 21, &entry.content_hash, 8);
  std::memcpy(text + 29, &entry.timestamp, 8);
  // The agent enters as a seed: no copying on a path taken once per report.
  return state::Digest(xxh3_128({text, sizeof text}, xxh3_64(agent)));
}

const Dedupe::Entry* Dedupe::find(UInt128 id_hash, int64_t oldest) {
  if (slots_.empty()) return nullptr;
  const Entry& slot = slot_of(id_hash);
  return slot.timestamp < std::max({oldest, forgotten_to_, kNever + 1}) ? nullptr : &slot;
}

Dedupe::Entry& Dedupe::slot_of(UInt128 id_hash) {
  // The hash is as good as random, so its low bits say where to begin.
  for (size_t at = static_cast<size_t>(id_hash);; ++at) {
    Entry& slot = slots_[at & (slots_.size() - 1)];
    if (slot.timestamp == kNever || slot.id_hash == id_hash) return slot;
  }
}

void Dedupe::index(const Entry& entry) {
  if (used_ * 4 >= slots_.size() * 3) rebuild();
  Entry& slot = slot_of(entry.id_hash);
  if (slot.timestamp == kNever) ++used_;
  if (slot.timestamp <= entry.timestamp) slot = entry;
}

void Dedupe::rebuild() {
  std::vector<Entry> kept = std::exchange(slots_, {});
  std::erase_if(kept, [&](const Entry& e) { return e.timestamp < std::max(forgotten_to_, kNever + 1); });
  used_ = kept.size();
  slots_.resize(std::bit_ceil(std::max<size_t>(8, used_ * 2)));
  for (const Entry& entry : kept) slot_of(entry.id_hash) = entry;
}

Dedupe::Bucket& Dedupe::bucket_of(int64_t timestamp) {
  const int64_t start = floor_to(timestamp, kBucketMs);
  if (last_bucket_ == nullptr || start != last_start_) {
    last_bucket_ = &buckets_[start];
    last_start_ = start;
  }
  return *last_bucket_;
}

void Dedupe::remember(std::string_view agent, const Entry& entry) {
  Bucket& bucket = bucket_of(entry.timestamp);
  if (bucket.entries.size() == bucket.stored) dirty_.push_back(last_start_);
  bucket.entries.push_back(entry);
  index(entry);
  const state::Digest digest = entry_digest(agent, entry);
  bucket.digest += digest;
  change_ += digest;
}

void Dedupe::forget_before(int64_t oldest) {
  while (!buckets_.empty() && buckets_.begin()->first + kBucketMs <= oldest) {
    auto& [start, bucket] = *buckets_.begin();
    change_ -= bucket.digest;
    forgotten_to_ = start + kBucketMs;
    for (size_t first = 0; first < bucket.stored; first += kChunkEntries) gone_.push_back({start, first / kChunkEntries, {}});
    if (last_bucket_ == &bucket) last_bucket_ = nullptr;
    buckets_.erase(buckets_.begin());
  }
}

std::vector<Dedupe::Row> Dedupe::take_rows() {
  std::vector<Row> rows = std::exchange(gone_, {});
  for (int64_t start : std::exchange(dirty_, {})) {
    auto it = buckets_.find(start);
    if (it == buckets_.end() || it->second.stored == it->second.entries.size()) continue;
    Bucket& bucket = it->second;
    for (size_t chunk = bucket.stored / kChunkEntries; chunk * kChunkEntries < bucket.entries.size(); ++chunk) {
      const size_t end = std::min(bucket.entries.size(), (chunk + 1) * kChunkEntries);
      std::string value;
      value.reserve((end - chunk * kChunkEntries) * kEntryBytes);
      for (size_t k = chunk * kChunkEntries; k < end; ++k) {
        const Entry& entry = bucket.entries[k];
        const int64_t within = entry.timestamp - start;  // < 900,000: three bytes
        value.append(reinterpret_cast<const char*>(&entry.id_hash), 16);
        value.append(reinterpret_cast<const char*>(&entry.content_hash), 8);
        for (int shift : {0, 8, 16}) value.push_back(static_cast<char>(within >> shift));
      }
      rows.push_back({start, chunk, std::move(value)});
    }
    bucket.stored = bucket.entries.size();
  }
  return rows;
}

bool Dedupe::decode(int64_t bucket, std::string_view value, std::vector<Entry>& out) {
  if (value.size() % kEntryBytes != 0) return false;
  for (size_t at = 0; at < value.size(); at += kEntryBytes) {
    Entry entry;
    std::memcpy(&entry.id_hash, value.data() + at, 16);
    std::memcpy(&entry.content_hash, value.data() + at + 16, 8);
    auto byte = [&](size_t k) { return static_cast<int64_t>(static_cast<unsigned char>(value[at + 24 + k])); };
    entry.timestamp = bucket + (byte(0) | byte(1) << 8 | byte(2) << 16);
    out.push_back(entry);
  }
  return true;
}

bool Dedupe::load(std::string_view agent, int64_t start, uint64_t chunk, std::string_view value) {
  Bucket& bucket = bucket_of(start);
  if (bucket.entries.size() != chunk * kChunkEntries) return false;
  if (!decode(start, value, bucket.entries)) return false;
  for (size_t k = bucket.stored; k < bucket.entries.size(); ++k) {
    index(bucket.entries[k]);
    bucket.digest += entry_digest(agent, bucket.entries[k]);
  }
  bucket.stored = bucket.entries.size();
  return true;
}

}  // namespace assay::processors
