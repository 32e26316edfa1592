// Every option of compression and evaluation, declared once: its name, what it is, its range, default and
// preset values, when it changes nothing, its help and its label in reports. Flags, keys of experiment files,
// checks, what compression.json records, help, reports and advised commands all follow from these tables.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace mica {

inline constexpr double kMostExactInteger =
    9007199254740991;  // 2^53 - 1: beyond it a double is several integers

enum class OptionKind {
  kNumber,
  kInteger,
  kIntegers,  // a list of integers, at least one, each once; "2,3,4" on the command line
  kBool,      // true or false in JSON, one of the words of ParseTruth on the command line
  kSwitch,    // the same, but a flag that needs no value; --no-NAME undoes one that is on by itself
  kChoice,    // one word of several
  kBytes,     // a whole number of bytes; "40MB" on the command line
  kText,      // not empty, unless it may be
  kTexts,     // a list of texts, none empty; once for each on the command line
  kPath,      // never empty
  kSources    // texts: objects with `words` as their keys; "KIND=FILE" on the command line, once for each
};

// Where an option may be given.
enum class OptionPlace { kFlagAndKey, kFlag, kKey };

// An option changes nothing where another one has a certain value.
struct IdleRule {
  const char* option;        // the other one
  Json value;                // its value
  const char* instead;       // what to give where the option is to have an effect: "--coding entropy"
  const char* because = "";  // behind "--grouping waterfill": ", which forms no groups"
};

// Another spelling of one of an option's words.
struct Spelling {
  const char* given;
  const char* word;
};

// The default of an option with a coding.
struct CodingDefault {
  const char* coding;
  Json value;
};

struct Option {
  const char* name;  // of the flag, without its dashes
  OptionKind kind;
  const char* group;                    // heading of the help that it stands under
  const char* help;                     // one line, without default and range
  Json value = nullptr;                 // default; null: none, or it follows from other facts
  double least = 0, most = 0;           // numbers: range, both ends included
  bool above_least = false;             // the lower end itself is not in the range,
  bool below_most = false;              // nor is the upper end
  std::vector<int> integers = {};       // integers: the ones allowed, instead of a range
  std::vector<const char*> words = {};  // choices: the words; sources: the keys of each
  const char* unit = "";                // of a number, "bits"
  Json fast = nullptr, best = nullptr;  // value of these presets; null: the default, as preset balanced
  // Defaults with some codings, instead of `value`; equal ones in a row.
  std::vector<CodingDefault> codings = {};
  std::vector<IdleRule> idle = {};  // the first that holds is named
  OptionPlace place = OptionPlace::kFlagAndKey;
  const char* key = "";  // in JSON; "": the name with '_' for '-'
  const char* one_of =
      "";  // of options that exclude one another: the key that holds {"kind": name, "value": value}
  bool required = false;                    // on the command line
  bool may_be_empty = false;                // of a text
  const char* letter = "";                  // short form of the flag, without its dash
  std::vector<const char*> old_names = {};  // flags that it had: taken for one more version, in no help
  std::vector<Spelling> spellings = {};     // choices: taken, and known by its word from there on
  const char* english = "";                 // label in reports; "": none
  const char* chinese = "";
};

// `mica compress` and an experiment's "compress", in the order of compression.json's "settings".
std::span<const Option> CompressionOptionTable();
// A budget that is stated as quality, and the texts to measure it on: flags of `mica compress`.
std::span<const Option> QualityOptionTable();
// `mica eval` and an experiment's "evaluate".
std::span<const Option> EvaluationOptionTable();
// `mica synthesize`.
std::span<const Option> SynthesisOptionTable();
// `mica compare`, `mica run`, `mica export`, `mica inspect`, `mica status`, `mica tokenize`.
std::span<const Option> ComparisonOptionTable();
std::span<const Option> RunOptionTable();
std::span<const Option> ExportOptionTable();
std::span<const Option> InspectionOptionTable();
std::span<const Option> StatusOptionTable();
std::span<const Option> TokenizingOptionTable();
// `mica generate` and `mica chat`: how a text goes on, and where it begins (`mica generate` alone).
std::span<const Option> GenerationOptionTable();
std::span<const Option> PromptOptionTable();
// `mica chat`.
std::span<const Option> ChatOptionTable();
// `mica bench`.
std::span<const Option> BenchOptionTable();
// An experiment's "samples".
std::span<const Option> SampleOptionTable();
// Flags of every working command.
std::span<const Option> CommonOptionTable();

// The option of this name. There must be one.
const Option& FindOption(std::span<const Option> options, const std::string& name);
// The option that this key of a JSON object gives, none when it is unknown ("budget": its first one).
const Option* OptionOfKey(std::span<const Option> options, const std::string& key);
std::string KeyOf(const Option& option);
// Its value under a preset ("fast", "balanced", "best") and coding; null where it has none.
Json DefaultOf(const Option& option, const std::string& preset, const std::string& coding);
// What is given for it in a flat object of keys, none when nothing is.
const Json* ValueIn(const Json& values, const Option& option);
// The same, or its default.
Json ValueOf(const Json& values, const Option& option);
void SetValue(Json& values, const Option& option, Json value);

// Why the option changes nothing under these settings (a flat object of keys; what is absent has no effect on
// others); none when it changes something.
const IdleRule* IdleIn(const Option& option, const Json& settings);
// Removes the options that change nothing because of the value that `option` has.
void EraseIdle(Json& settings, const std::string& option);

// The `known` name that looks most like `name`, dashes apart; empty when none does.
std::string NearestName(const std::string& name, const std::vector<std::string>& known);
// True for "true", "yes" and "on", false for "false", "no" and "off", none for other words.
std::optional<bool> ParseTruth(std::string_view word);
// The settings of a compression (an object of keys) without those that say nothing: values that an option has
// under this preset and coding anyhow, and values that follow from other settings.
Json EssentialSettings(const Json& settings);
// Settings as in a run whose compression.json has `settings`, but for what is `given`; of the run's, what
// changes nothing beside it or contradicts it is left out. Unknown keys of the run throw Error naming
// `where`.
Json SettingsLike(const Json& settings, const Json& given, const std::string& where);

// "0 to 4", "more than 0 and at most 16 bits", "fixed or entropy", "true or false".
std::string ExpectedText(const Option& option);
// A value as the command line takes it: 0.25, true, "2,3,4".
std::string ValueText(const Json& value);

// `value` if the option may have it (a whole number as an integer where one is expected). Throws Error that
// names option, value and what is expected: as a flag ("--lambda is 5, expected 0 to 4") where `where` is
// empty, else as a key of the object there.
Json CheckedValue(const Option& option, const Json& value, const std::string& where = "");
// The value that the texts behind a flag stand for, checked; one text but for lists. Not for sources.
Json ParseValue(const Option& option, const std::vector<std::string>& texts);
// An object of keys, each value checked. Unknown keys throw Error that names them and `where`; options that
// are flags only are known where that is empty, as flags are collected.
Json ReadOptions(std::span<const Option> options, const Json& json, const std::string& where);

}  // namespace mica
