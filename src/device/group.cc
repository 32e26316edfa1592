#include "device/group.h"

#include <algorithm>

#include "base/error.h"
#include "device/array.h"

namespace mica {
namespace {

class AloneGroup final : public Group {
 public:
  AloneGroup() : Group(0, 1) {}

 protected:
  void ExchangeBytes(Device, std::span<const ConstBytes>, std::span<const Bytes>) const override {}
  void BroadcastBytes(Device, size_t, Bytes) const override {}
};

template <typename Byte>
std::span<Byte> BytesOf(const BasicTensor<Byte>& x) {
  if (x.empty()) return {};
  MICA_CHECK(x.rows == 1 || x.stride == x.cols);
  return {x.data, x.rows * x.cols * DTypeBytes(x.dtype)};
}

template <typename Value>
std::span<std::byte> BytesOf(std::vector<Value>& values) {
  return std::as_writable_bytes(std::span(values));
}

}  // namespace

const Group& Group::Alone() {
  static const AloneGroup alone;
  return alone;
}

void Group::Exchange(std::span<const ConstTensor> to, std::span<const Tensor> from) const {
  MICA_CHECK(to.size() == size_);
  MICA_CHECK(from.size() == size_);
  MICA_CHECK(BytesOf(to[rank_]).size() == BytesOf(from[rank_]).size());
  if (!to[rank_].empty() && to[rank_].data != from[rank_].data) Copy(to[rank_], from[rank_]);
  if (alone()) return;
  Device device;
  std::vector<ConstBytes> sent;
  std::vector<Bytes> received;
  for (size_t r = 0; r < size_; ++r) {
    const bool other = r != rank_;
    sent.push_back(other ? BytesOf(to[r]) : ConstBytes());
    received.push_back(other ? BytesOf(from[r]) : Bytes());
    if (!sent.back().empty()) device = to[r].device;
    if (!received.back().empty()) device = from[r].device;
  }
  ExchangeBytes(device, sent, received);
}

void Group::Broadcast(size_t root, Tensor x) const {
  if (!alone() && !x.empty()) BroadcastBytes(x.device, root, BytesOf(x));
}

void Group::ShareRows(Tensor x, std::span<const Part> parts) const {
  if (alone()) return;
  std::vector<ConstTensor> to(size_, x.Rows(parts[rank_].first, parts[rank_].count));
  std::vector<Tensor> from;
  for (const Part& part : parts) from.push_back(x.Rows(part.first, part.count));
  Exchange(to, from);
}

std::string Group::Broadcast(size_t root, const std::string& text) const {
  if (alone()) return text;
  std::vector<uint64_t> length{text.size()};
  BroadcastBytes(Device::Cpu(), root, BytesOf(length));
  std::string all = rank_ == root ? text : std::string(length[0], '\0');
  if (!all.empty()) BroadcastBytes(Device::Cpu(), root, std::as_writable_bytes(std::span(all)));
  return all;
}

std::vector<std::vector<double>> Group::Gather(std::span<const double> mine) const {
  std::vector<std::vector<double>> all(size_);
  all[rank_].assign(mine.begin(), mine.end());
  if (alone()) return all;
  std::vector<std::vector<uint64_t>> counts(size_, {mine.size()});
  std::vector<ConstBytes> sent(size_);
  std::vector<Bytes> received(size_);
  const auto exchange = [&](auto& values, ConstBytes own) {
    for (size_t r = 0; r < size_; ++r) {
      sent[r] = r == rank_ ? ConstBytes() : own;
      received[r] = r == rank_ ? Bytes() : BytesOf(values[r]);
    }
    ExchangeBytes(Device::Cpu(), sent, received);
  };
  exchange(counts, BytesOf(counts[rank_]));
  for (size_t r = 0; r < size_; ++r) all[r].resize(counts[r][0]);
  exchange(all, BytesOf(all[rank_]));
  return all;
}

}  // namespace mica
