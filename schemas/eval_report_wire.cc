// Reports in Protobuf, read from the wire format itself.
#include <bit>
#include <cmath>
#include <cstring>

#include "schemas/eval_report_forms.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

// Field numbers of proto/eval_report.proto; the parity test reads the same bytes through the generated code.
enum Number : uint32_t {
  kAgentId = 2,
  kId = 3,
  kDivisionId = 7,
  kMetricSet = 8,
  kTimestamp = 9,
  kSource = 10,
  kWindow = 11,
  kMetadata = 12,
  kComputedScore = 13,
};

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kStartGroup = 3, kEndGroup = 4, kFixed32 = 5 };

struct Tag {
  uint32_t number = 0;
  uint32_t type = 0;
};

// Reads the fields of one message; every function returns false when the bytes are no Protobuf.
class Wire {
 public:
  explicit Wire(std::string_view bytes) : p_(bytes.data()), end_(p_ + bytes.size()) {}

  bool at_end() const { return p_ == end_; }

  bool tag(Tag* out) {
    uint64_t value = 0;
    if (!varint(&value, 5)) return false;
    const uint32_t tag = static_cast<uint32_t>(value);
    *out = {tag >> 3, tag & 7};
    return out->number != 0 && out->type <= kFixed32;
  }

  bool varint(uint64_t* out, int max_bytes = 10) {
    uint64_t value = 0;
    for (int i = 0; i < max_bytes && p_ < end_; ++i) {
      const uint64_t byte = static_cast<unsigned char>(*p_++);
      value |= (byte & 0x7F) << (7 * i);
      if (byte < 0x80) {
        *out = value;
        return true;
      }
    }
    return false;
  }

  bool bytes(std::string_view* out) {
    uint64_t size = 0;
    if (!varint(&size, 5) || size > static_cast<uint64_t>(end_ - p_)) return false;
    *out = {p_, static_cast<size_t>(size)};
    p_ += size;
    return true;
  }

  bool fixed64(double* out) {
    if (end_ - p_ < 8) return false;
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits |= static_cast<uint64_t>(static_cast<unsigned char>(p_[i])) << (8 * i);
    *out = std::bit_cast<double>(bits);
    p_ += 8;
    return true;
  }

  bool skip(Tag tag, int depth = 0) {
    switch (tag.type) {
      case kVarint: {
        uint64_t ignored;
        return varint(&ignored);
      }
      case kFixed64:
        return advance(8);
      case kFixed32:
        return advance(4);
      case kBytes: {
        std::string_view ignored;
        return bytes(&ignored);
      }
      case kStartGroup: {
        if (depth == kMaxJsonDepth) return false;
        while (true) {
          Tag inner;
          if (!this->tag(&inner)) return false;
          if (inner.type == kEndGroup) return inner.number == tag.number;
          if (!skip(inner, depth + 1)) return false;
        }
      }
      default:
        return false;  // the end of a group that never began
    }
  }

 private:
  bool advance(size_t n) {
    if (static_cast<size_t>(end_ - p_) < n) return false;
    p_ += n;
    return true;
  }

  const char* p_;
  const char* end_;
};

class Reader {
 public:
  Reader(ReportDraft* draft, Reject* reject) : draft_(*draft), reject_(*reject) {}

  bool read_report(std::string_view message) {
    Wire wire(message);
    while (!wire.at_end()) {
      Tag tag;
      if (!wire.tag(&tag)) return broken("a field's tag");
      const Field field = field_of(tag.number);
      if (field == Field::kReport) {
        draft_.see_unknown();
        if (!wire.skip(tag)) return broken("a field that is unknown here");
        continue;
      }
      // A map is repeated by nature; its entries are told apart by their names.
      if (field != Field::kMetricSet) draft_.see(field);
      if (tag.type != (field == Field::kComputedScore ? kFixed64 : kBytes)) {
        wrong_type(field, "has another wire type than in the schema");
        if (!wire.skip(tag)) return broken(field_name(field));
        if (field == Field::kMetricSet) draft_.set_metrics_given();
        continue;
      }
      if (!read_field(field, &wire)) return false;
    }
    return true;
  }

 private:
  static Field field_of(uint32_t number) {
    switch (number) {
      case kAgentId:
        return Field::kAgentId;
      case kId:
        return Field::kId;
      case kDivisionId:
        return Field::kDivisionId;
      case kMetricSet:
        return Field::kMetricSet;
      case kTimestamp:
        return Field::kTimestamp;
      case kSource:
        return Field::kSource;
      case kWindow:
        return Field::kWindow;
      case kMetadata:
        return Field::kMetadata;
      case kComputedScore:
        return Field::kComputedScore;
      default:
        return Field::kReport;
    }
  }

  bool broken(std::string_view where) {
    reject_ = {Reason::kNotProtobuf, "not Protobuf: the wire format breaks in " + std::string(where)};
    return false;
  }

  bool not_utf8(std::string_view where) {
    reject_ = {Reason::kNotProtobuf, "not Protobuf: text that is not UTF-8 in " + std::string(where)};
    return false;
  }

  void wrong_type(Field field, const char* what) {
    draft_.problem(field, Reason::kWrongType, std::string(field_name(field)) + " " + what);
  }

  bool read_field(Field field, Wire* wire) {
    if (field == Field::kComputedScore) {
      double value = 0;
      if (!wire->fixed64(&value)) return broken("computedScore");
      draft_.set_computed_score(value);
      return true;
    }
    std::string_view bytes;
    if (!wire->bytes(&bytes)) return broken(field_name(field));
    switch (field) {
      case Field::kMetricSet:
        return read_metric(bytes);
      case Field::kTimestamp:
        return read_timestamp(bytes);
      case Field::kMetadata: {
        UInt128 hash = 0;
        if (!hash_struct(bytes, 2, &hash)) return false;
        draft_.set_metadata(hash);
        return true;
      }
      case Field::kSource:
      case Field::kWindow:
        if (!valid_utf8(bytes)) return not_utf8(field_name(field));
        draft_.set_text(field, {bytes, true});
        return true;
      default:
        draft_.set_text(field, {bytes, valid_utf8(bytes)});
        return true;
    }
  }

  // Reads one message with at most two known fields, 1 and 2, of which none may stand twice or have another wire type.
  template <class Take>
  bool read_pair(std::string_view message, Field field, uint32_t first_type, uint32_t second_type, Take take) {
    Wire wire(message);
    uint32_t seen = 0;
    while (!wire.at_end()) {
      Tag tag;
      if (!wire.tag(&tag)) return broken(field_name(field));
      const bool known = tag.number <= 2;
      const bool fits = known && tag.type == (tag.number == 1 ? first_type : second_type);
      if (known && !fits) wrong_type(field, "holds a value of another wire type than in the schema");
      if (!fits) {
        if (!wire.skip(tag)) return broken(field_name(field));
        continue;
      }
      if ((seen & tag.number) != 0) wrong_type(field, "holds a value that stands twice");
      seen |= tag.number;
      if (!take(tag.number, &wire)) return broken(field_name(field));
    }
    return true;
  }

  bool read_metric(std::string_view entry) {
    draft_.set_metrics_given();
    std::string_view name;
    double value = 0;  // serializers may leave out a zero
    const bool read = read_pair(entry, Field::kMetricSet, kBytes, kFixed64, [&](uint32_t number, Wire* wire) {
      return number == 1 ? wire->bytes(&name) : wire->fixed64(&value);
    });
    if (!read) return false;
    if (!valid_utf8(name)) return not_utf8("a metric's name");
    draft_.add_metric({name, true}, value);
    return true;
  }

  bool read_timestamp(std::string_view message) {
    uint64_t seconds_bits = 0, nanos_bits = 0;
    const bool read = read_pair(message, Field::kTimestamp, kVarint, kVarint, [&](uint32_t number, Wire* wire) {
      return wire->varint(number == 1 ? &seconds_bits : &nanos_bits);
    });
    if (!read) return false;
    const int64_t seconds = static_cast<int64_t>(seconds_bits);
    const int32_t nanos = static_cast<int32_t>(static_cast<uint32_t>(nanos_bits));
    constexpr int64_t kFirstSecond = -62135596800;  // 0001-01-01 and 9999-12-31, as google.protobuf.Timestamp has it
    constexpr int64_t kLastSecond = 253402300799;
    if (seconds < kFirstSecond || seconds > kLastSecond || nanos < 0 || nanos > 999999999) {
      draft_.problem(
          Field::kTimestamp, Reason::kBadTimestamp,
          "timestamp is no instant of the years 1 to 9999: " + std::to_string(seconds) + " s " + std::to_string(nanos) + " ns");
      draft_.set_timestamp_ms(0);
    } else {
      draft_.set_timestamp_ms(seconds * 1000 + nanos / 1000000);
    }
    return true;
  }

  bool too_deep() {
    reject_ = {Reason::kTooDeep, "metadata is nested deeper than 64 levels"};
    return false;
  }

  // `depth` counts as the JSON form does: the report is level 1, its metadata level 2.
  bool hash_struct(std::string_view message, int depth, UInt128* out) {
    if (depth > kMaxJsonDepth) return too_deep();
    ObjectHasher& objects = draft_.objects();
    ObjectHasher::Open object = objects.open();
    Wire wire(message);
    while (!wire.at_end()) {
      Tag tag;
      std::string_view entry, name, value;
      if (!wire.tag(&tag)) return broken("metadata");
      if (tag.number != 1 || tag.type != kBytes) {
        if (tag.number == 1) wrong_type(Field::kMetadata, "holds a value of another wire type than in the schema");
        if (!wire.skip(tag)) return broken("metadata");
        continue;
      }
      if (!wire.bytes(&entry)) return broken("metadata");
      auto take = [&](uint32_t number, Wire* inner) { return inner->bytes(number == 1 ? &name : &value); };
      if (!read_pair(entry, Field::kMetadata, kBytes, kBytes, take)) return false;
      if (!valid_utf8(name)) return not_utf8("metadata");
      UInt128 hash = 0;
      if (!hash_value(value, depth, &hash)) return false;
      objects.add(&object, name, hash);
    }
    bool twice = false;
    *out = objects.close(object, &twice);
    if (twice) wrong_type(Field::kMetadata, "holds an object with a member twice");
    return true;
  }

  bool hash_list(std::string_view message, int depth, UInt128* out) {
    if (depth > kMaxJsonDepth) return too_deep();
    ArrayHash array;
    Wire wire(message);
    while (!wire.at_end()) {
      Tag tag;
      if (!wire.tag(&tag)) return broken("metadata");
      if (tag.number != 1 || tag.type != kBytes) {
        if (tag.number == 1) wrong_type(Field::kMetadata, "holds a value of another wire type than in the schema");
        if (!wire.skip(tag)) return broken("metadata");
        continue;
      }
      std::string_view element;
      UInt128 hash = 0;
      if (!wire.bytes(&element)) return broken("metadata");
      if (!hash_value(element, depth, &hash)) return false;
      array.add(hash);
    }
    *out = array.done();
    return true;
  }

  // google.protobuf.Value: null 1, number 2, string 3, bool 4, struct 5, list 6; exactly one of them.
  bool hash_value(std::string_view message, int depth, UInt128* out) {
    static constexpr uint32_t kTypes[] = {0, kVarint, kFixed64, kBytes, kVarint, kBytes, kBytes};
    int kinds = 0;
    Wire wire(message);
    while (!wire.at_end()) {
      Tag tag;
      if (!wire.tag(&tag)) return broken("metadata");
      if (tag.number > 6 || tag.type != kTypes[tag.number]) {
        if (tag.number <= 6) wrong_type(Field::kMetadata, "holds a value of another wire type than in the schema");
        if (!wire.skip(tag)) return broken("metadata");
        continue;
      }
      ++kinds;
      uint64_t bits = 0;
      double number = 0;
      std::string_view bytes;
      const bool read = kTypes[tag.number] == kVarint    ? wire.varint(&bits)
                        : kTypes[tag.number] == kFixed64 ? wire.fixed64(&number)
                                                         : wire.bytes(&bytes);
      if (!read) return broken("metadata");
      switch (tag.number) {
        case 1:
          *out = hash_null();
          break;
        case 2:
          if (!std::isfinite(number))
            draft_.problem(Field::kMetadata, Reason::kValueNotFinite, "a number in metadata is not finite");
          *out = hash_number(number);
          break;
        case 3:
          if (!valid_utf8(bytes)) return not_utf8("metadata");
          *out = hash_text(bytes);
          break;
        case 4:
          *out = hash_bool(bits != 0);
          break;
        case 5:
          if (!hash_struct(bytes, depth + 1, out)) return false;
          break;
        default:
          if (!hash_list(bytes, depth + 1, out)) return false;
      }
    }
    if (kinds != 1) wrong_type(Field::kMetadata, kinds == 0 ? "holds a Value without a kind" : "holds a Value of two kinds");
    return true;
  }

  ReportDraft& draft_;
  Reject& reject_;
};

}  // namespace

bool read_protobuf_report(std::string_view bytes, ReportDraft* draft, Reject* reject) {
  return Reader(draft, reject).read_report(bytes);
}

}  // namespace assay::schemas
