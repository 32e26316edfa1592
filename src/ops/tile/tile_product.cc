#include "ops/tile/tile_product.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <dnnl.hpp>

#include "base/error.h"
#include "base/system.h"
#include "device/scratch.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

using dnnl::memory;

// Room that oneDNN needs to make the code of a primitive; where there is none, it may crash.
constexpr size_t kPrimitiveBytes = size_t{32} << 20;

std::atomic<bool> g_allow_native{true};
std::atomic<uint64_t> g_nanoseconds{0}, g_flops{0};

bool ProcessorHasBf16() {
#if defined(__x86_64__)
  // The values of the enumeration are sets of features; a richer set contains the bits of a poorer one.
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (has & needed) == needed;
#else
  return false;
#endif
}

// Whether a row of a product of FP32 does not depend on how many there are: oneDNN's kernels for processors without
// AVX-512 take the sums of some rows in another order.
bool RowsAreAlike() {
#if defined(__x86_64__)
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  return (has & needed) == needed;
#else
  return false;
#endif
}
// There rows are taken so many at a time, the last ones with zeros behind them up to a multiple of what their kernels
// take at once.
constexpr size_t kRowsTogether = 128, kRowsOfKernel = 64;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& Stream() {
  thread_local dnnl::stream stream(Engine());
  return stream;
}

// While one lives, oneDNN plans and runs on the calling thread alone. Primitives are planned for the number
// of threads in force, which would otherwise change their blocking and with it the order of sums.
class OneThread {
 public:
#ifdef _OPENMP
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
#else
  OneThread() : threads_(1) {}
#endif
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  [[maybe_unused]] int threads_;
};

memory::dim Dim(size_t value) { return static_cast<memory::dim>(value); }

// How the operand b lies in memory.
enum class BLayout : uint8_t { kPlain, kTransposed, kPacked };

struct Shape {
  size_t m = 0, n = 0, k = 0;
  bool bf16 = false;
  bool a_transposed = false;
  BLayout b = BLayout::kPlain;
  bool accumulate = false;
  bool operator==(const Shape&) const = default;
};

struct ShapeHash {
  size_t operator()(const Shape& s) const {
    uint64_t hash = s.m * 0x9E3779B97F4A7C15u;
    hash = (hash ^ s.n) * 0xBF58476D1CE4E5B9u;
    hash = (hash ^ s.k) * 0x94D049BB133111EBu;
    hash ^= uint64_t{s.bf16} | uint64_t{s.a_transposed} << 1 | static_cast<uint64_t>(s.b) << 2 |
            uint64_t{s.accumulate} << 4;
    return hash ^ (hash >> 29);
  }
};

memory::desc PackedDescription(size_t n, size_t k, bool bf16);

dnnl::matmul::primitive_desc Describe(const Shape& s) {
  RequireAddressSpace(kPrimitiveBytes);
  const auto type = s.bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a({Dim(s.m), Dim(s.k)}, type,
                       s.a_transposed ? memory::dims{1, Dim(s.m)} : memory::dims{Dim(s.k), 1});
  const memory::desc c({Dim(s.m), Dim(s.n)}, memory::data_type::f32, memory::dims{Dim(s.n), 1});
  const memory::desc b =
      s.b == BLayout::kPacked
          ? PackedDescription(s.n, s.k, s.bf16)
          : memory::desc({Dim(s.k), Dim(s.n)}, type,
                         s.b == BLayout::kTransposed ? memory::dims{1, Dim(s.k)} : memory::dims{Dim(s.n), 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(Engine(), a, b, c, attributes);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attributes, Engine());
#endif
}

// The layout that the kernels like best for b, asked for with many tokens and then used for any number of
// them.
memory::desc PackedDescription(size_t n, size_t k, bool bf16) {
  struct Key {
    size_t n, k;
    bool bf16;
    bool operator==(const Key&) const = default;
  };
  thread_local std::vector<std::pair<Key, memory::desc>> known;
  const Key key{n, k, bf16};
  for (const auto& [other, description] : known) {
    if (other == key) return description;
  }
  const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a({256, Dim(k)}, type, memory::dims{Dim(k), 1});
  const memory::desc b({Dim(k), Dim(n)}, type, memory::format_tag::any);
  const memory::desc c({256, Dim(n)}, memory::data_type::f32, memory::dims{Dim(n), 1});
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc primitive(Engine(), a, b, c);
#else
  const dnnl::matmul::primitive_desc primitive(dnnl::matmul::desc(a, b, c), Engine());
#endif
  if (known.size() >= 64) known.clear();
  known.emplace_back(key, primitive.weights_desc());
  return known.back().second;
}

// A primitive with the handles it runs on; one per thread and shape.
struct Prepared {
  explicit Prepared(const Shape& shape) {
    const dnnl::matmul::primitive_desc description = Describe(shape);
    primitive = dnnl::matmul(description);
    a = memory(description.src_desc(), Engine(), nullptr);
    if (shape.b != BLayout::kPacked) b = memory(description.weights_desc(), Engine(), nullptr);
    c = memory(description.dst_desc(), Engine(), nullptr);
    scratchpad_bytes = description.scratchpad_desc().get_size();
    scratchpad = memory(description.scratchpad_desc(), Engine(), nullptr);
  }

  void Run(const void* a_values, const memory* packed_b, const void* b_values, float* c_values) {
    a.set_data_handle(const_cast<void*>(a_values));
    if (packed_b == nullptr) b.set_data_handle(const_cast<void*>(b_values));
    c.set_data_handle(c_values);
    scratchpad.set_data_handle(Scratch<std::byte, 100>(scratchpad_bytes));
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, a.get()},
        {DNNL_ARG_WEIGHTS, packed_b == nullptr ? b.get() : packed_b->get()},
        {DNNL_ARG_DST, c.get()},
        {DNNL_ARG_SCRATCHPAD, scratchpad.get()},
    };
    const dnnl_status_t status = dnnl_primitive_execute(primitive.get(), Stream().get(), 4, arguments);
    if (status == dnnl_out_of_memory) throw std::bad_alloc();
    MICA_CHECK(status == dnnl_success);
  }

  dnnl::matmul primitive;
  memory a, b, c, scratchpad;
  size_t scratchpad_bytes = 0;
};

void Run(const Shape& shape, const void* a, const memory* packed_b, const void* b, float* c) {
  MICA_CHECK(shape.m > 0);
  MICA_CHECK(shape.n > 0);
  MICA_CHECK(shape.k > 0);
  const OneThread one_thread;
  thread_local std::unordered_map<Shape, std::unique_ptr<Prepared>, ShapeHash> cache;
  std::unique_ptr<Prepared>& prepared = cache[shape];
  if (prepared == nullptr) {
    // Text of growing length would add shapes without end.
    if (cache.size() > 512) {
      cache.clear();
      return Run(shape, a, packed_b, b, c);
    }
    try {
      prepared = std::make_unique<Prepared>(shape);
    } catch (const dnnl::error& error) {
      cache.erase(shape);
      if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
      Fail("there is no product of [{}, {}] by [{}, {}] in {} on this machine; use --dtype fp32", shape.m,
           shape.k, shape.k, shape.n, shape.bf16 ? "bf16" : "fp32");
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  prepared->Run(a, packed_b, b, c);
  const std::chrono::nanoseconds elapsed = std::chrono::steady_clock::now() - begin;
  g_nanoseconds.fetch_add(static_cast<uint64_t>(elapsed.count()), std::memory_order_relaxed);
  g_flops.fetch_add(2 * shape.m * shape.n * shape.k, std::memory_order_relaxed);
}

// FP32 copies of BF16 operands, for processors that do not multiply BF16.
template <int Slot>
const float* Widened(const BF16* values, size_t count) {
  float* wide = Scratch<float, Slot>(count);
  Kernels(Backend::kCpu).bf16.to_f32(values, count, wide);
  return wide;
}

BLayout Layout(bool transposed) { return transposed ? BLayout::kTransposed : BLayout::kPlain; }

}  // namespace

ProductCost ProductsSoFar() {
  return {static_cast<double>(g_nanoseconds) * 1e-9, static_cast<double>(g_flops)};
}

bool NativeBf16() {
  static const bool processor_has = ProcessorHasBf16();
  return processor_has && g_allow_native;
}

void AllowNativeBf16(bool allow) { g_allow_native = allow; }

void TileProduct(const float* a, const float* b, bool b_transposed, size_t m, size_t n, size_t k,
                 bool accumulate, float* c) {
  Run({m, n, k, false, false, Layout(b_transposed), accumulate}, a, nullptr, b, c);
}

void TileProduct(const BF16* a, const BF16* b, bool b_transposed, size_t m, size_t n, size_t k,
                 bool accumulate, float* c) {
  if (!NativeBf16()) {
    return TileProduct(Widened<101>(a, m * k), Widened<102>(b, n * k), b_transposed, m, n, k, accumulate, c);
  }
  Run({m, n, k, true, false, Layout(b_transposed), accumulate}, a, nullptr, b, c);
}

void TileProductTransposedA(const float* a, const float* b, size_t m, size_t n, size_t k, bool accumulate,
                            float* c) {
  Run({m, n, k, false, true, BLayout::kPlain, accumulate}, a, nullptr, b, c);
}

void TileProductTransposedA(const BF16* a, const BF16* b, size_t m, size_t n, size_t k, bool accumulate,
                            float* c) {
  if (!NativeBf16()) {
    return TileProductTransposedA(Widened<101>(a, m * k), Widened<102>(b, n * k), m, n, k, accumulate, c);
  }
  Run({m, n, k, true, true, BLayout::kPlain, accumulate}, a, nullptr, b, c);
}

struct PackedOperand::Memory {
  Memory(const void* rows, size_t n, size_t k, bool bf16) {
    RequireAddressSpace(kPrimitiveBytes);
    const OneThread one_thread;
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory plain(memory::desc({Dim(k), Dim(n)}, type, memory::dims{1, Dim(k)}), Engine(),
                       const_cast<void*>(rows));
    packed = memory(PackedDescription(n, k, bf16), Engine());
    dnnl::reorder(plain, packed).execute(Stream(), const_cast<memory&>(plain), packed);
    Stream().wait();
  }
  memory packed;
};

PackedOperand::PackedOperand(const float* rows, size_t n, size_t k)
    : memory_(std::make_unique<Memory>(rows, n, k, false)), n_(n), k_(k) {}

PackedOperand::PackedOperand(const BF16* rows, size_t n, size_t k) : n_(n), k_(k), takes_bf16_(NativeBf16()) {
  if (takes_bf16_) {
    memory_ = std::make_unique<Memory>(rows, n, k, true);
  } else {
    memory_ = std::make_unique<Memory>(Widened<102>(rows, n * k), n, k, false);
  }
}

PackedOperand::~PackedOperand() = default;
PackedOperand::PackedOperand(PackedOperand&&) noexcept = default;
PackedOperand& PackedOperand::operator=(PackedOperand&&) noexcept = default;

size_t PackedOperand::bytes() const { return memory_->packed.get_desc().get_size(); }

void PackedOperand::Multiply(const float* a, size_t m, float* c) const {
  MICA_CHECK(!takes_bf16_);
  const auto run = [&](const float* rows, size_t count, float* out) {
    Run({count, n_, k_, false, false, BLayout::kPacked, false}, rows, &memory_->packed, nullptr, out);
  };
  if (RowsAreAlike()) return run(a, m, c);
  size_t first = 0;
  for (; first + kRowsTogether <= m; first += kRowsTogether) run(a + first * k_, kRowsTogether, c + first * n_);
  if (first == m) return;
  const size_t rows = (m - first + kRowsOfKernel - 1) / kRowsOfKernel * kRowsOfKernel;
  float* padded = Scratch<float, 101>(rows * (k_ + n_));
  float* out = padded + rows * k_;
  std::copy_n(a + first * k_, (m - first) * k_, padded);
  std::fill(padded + (m - first) * k_, out, 0.0f);
  run(padded, rows, out);
  std::copy_n(out, (m - first) * n_, c + first * n_);
}

void PackedOperand::Multiply(const BF16* a, size_t m, float* c) const {
  MICA_CHECK(takes_bf16_);
  Run({m, n_, k_, true, false, BLayout::kPacked, false}, a, &memory_->packed, nullptr, c);
}

}  // namespace mica
