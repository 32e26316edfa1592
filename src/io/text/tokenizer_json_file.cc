#include "io/text/tokenizer_json_file.h"

#include "base/error.h"
#include "base/file_kind.h"
#include "base/text.h"

namespace mica {
namespace {

// Builds the content as the parser comes along.
class ContentHandler : public nlohmann::json_sax<Json> {
 public:
  ContentHandler(std::string_view text, TokenizerJsonFile& content, const std::string& where)
      : text_(text), content_(content), where_(where) {}

  bool null() override { return Value(Json()); }
  bool boolean(bool value) override { return Value(value); }
  bool number_integer(number_integer_t value) override {
    if (part_ != Part::kVocab) return Value(value);
    content_.vocab.emplace_back(std::move(key_), value);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (part_ != Part::kVocab) return Value(value);
    content_.vocab.emplace_back(std::move(key_),
                                std::in_range<int64_t>(value) ? static_cast<int64_t>(value) : -1);
    return true;
  }
  bool number_float(number_float_t value, const string_t&) override { return Value(value); }
  bool string(string_t& value) override {
    if (part_ != Part::kMerges) return Value(value);
    if (in_merge_) {
      merge_.push_back(std::move(value));
      return true;
    }
    const size_t blank = value.find(' ');
    if (blank == std::string::npos || value.find(' ', blank + 1) != std::string::npos)
      Fail("{}: model.merges has \"{}\", expected two tokens and a blank between them", where_,
           Printable(value));
    content_.merges.emplace_back(value.substr(0, blank), value.substr(blank + 1));
    return true;
  }
  bool binary(binary_t&) override { return false; }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override {
    if (part_ != Part::kOther) Refuse("an object");
    if (open_.size() == 2 && path_.back() == "model" && key_ == "vocab") {
      part_ = Part::kVocab;
      content_.has_vocab = true;
      content_.vocab.clear();
      return true;
    }
    return Open(Json::object());
  }
  bool end_object() override {
    if (part_ == Part::kVocab) {
      part_ = Part::kOther;
      return true;
    }
    return Close();
  }
  bool start_array(std::size_t) override {
    if (part_ == Part::kMerges && !in_merge_) {
      in_merge_ = true;
      merge_.clear();
      return true;
    }
    if (part_ != Part::kOther) Refuse("an array");
    if (open_.size() == 2 && path_.back() == "model" && key_ == "merges") {
      part_ = Part::kMerges;
      content_.has_merges = true;
      content_.merges.clear();
      return true;
    }
    return Open(Json::array());
  }
  bool end_array() override {
    if (in_merge_) {
      in_merge_ = false;
      if (merge_.size() != 2)
        Fail("{}: model.merges has an array of {}, expected two tokens", where_, merge_.size());
      content_.merges.emplace_back(std::move(merge_[0]), std::move(merge_[1]));
      return true;
    }
    if (part_ == Part::kMerges) {
      part_ = Part::kOther;
      return true;
    }
    return Close();
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& failure) override {
    RefuseOtherKind(text_, where_, kJsonFile);
    Fail("{}: is not valid JSON ({})", where_, JsonReason(failure));
  }

 private:
  enum class Part { kOther, kVocab, kMerges };
  static constexpr size_t kMaxDepth = 64;

  [[noreturn]] void Refuse(const char* found) const {
    if (part_ == Part::kVocab) Fail("{}: model.vocab has {}, expected tokens and ids", where_, found);
    Fail("{}: model.merges has {}, expected texts or arrays of two tokens", where_, found);
  }
  // Puts a value where it belongs.
  Json* Place(Json value) {
    if (open_.empty()) {
      content_.json = std::move(value);
      return &content_.json;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& place = parent[key_];
    place = std::move(value);
    return &place;
  }
  bool Value(Json value) {
    if (part_ != Part::kOther) Refuse(value.type_name());
    Place(std::move(value));
    return true;
  }
  bool Open(Json value) {
    if (open_.size() >= kMaxDepth) Fail("{}: JSON nested deeper than {} levels", where_, kMaxDepth);
    path_.push_back(open_.empty() || open_.back()->is_array() ? "" : key_);
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    path_.pop_back();
    return true;
  }

  std::string_view text_;
  TokenizerJsonFile& content_;
  const std::string& where_;
  Part part_ = Part::kOther;
  bool in_merge_ = false;
  std::vector<std::string> merge_;
  std::string key_;
  std::vector<Json*> open_;        // objects and arrays around what comes next
  std::vector<std::string> path_;  // their keys
};

}  // namespace

TokenizerJsonFile ParseTokenizerJson(std::string_view text, const std::string& where) {
  TokenizerJsonFile content;
  ContentHandler handler(text, content, where);
  Json::sax_parse(text, &handler);
  return content;
}

}  // namespace mica
