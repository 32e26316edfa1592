// Row-major matrices: a view that owns nothing and an aligned buffer that does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

#include "base/error.h"

namespace mica {

// rows x cols values, row-major; consecutive rows are `stride` values apart (stride >= cols).
template <typename T>
struct MatrixView {
  T* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;

  MatrixView() = default;
  MatrixView(T* data_, size_t rows_, size_t cols_) : MatrixView(data_, rows_, cols_, cols_) {}
  MatrixView(T* data_, size_t rows_, size_t cols_, size_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  // A writable view converts to a read-only one.
  template <typename U>
  requires std::is_same_v<T, const U> MatrixView(const MatrixView<U>& other)
      : MatrixView(other.data, other.rows, other.cols, other.stride) {}

  T* row(size_t r) const { return data + r * stride; }
  T& operator()(size_t r, size_t c) const { return data[r * stride + c]; }
  // Rows [first, first + count).
  MatrixView Rows(size_t first, size_t count) const { return {data + first * stride, count, cols, stride}; }
  // Columns [first, first + count).
  MatrixView Cols(size_t first, size_t count) const { return {data + first, rows, count, stride}; }
};

// Owns rows * cols values of a trivial type, 64-byte aligned, uninitialised until filled. Move-only.
template <typename T>
class Matrix {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Matrix() = default;
  Matrix(size_t rows, size_t cols) : rows_(rows), cols_(cols) {
    const size_t bytes = std::max<size_t>(64, (rows * cols * sizeof(T) + 63) / 64 * 64);
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  Matrix(size_t rows, size_t cols, T value) : Matrix(rows, cols) { Fill(value); }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  size_t size() const { return rows_ * cols_; }
  bool empty() const { return size() == 0; }
  T* row(size_t r) { return data_.get() + r * cols_; }
  const T* row(size_t r) const { return data_.get() + r * cols_; }
  T& operator()(size_t r, size_t c) { return data_.get()[r * cols_ + c]; }
  const T& operator()(size_t r, size_t c) const { return data_.get()[r * cols_ + c]; }
  void Fill(T value) { std::fill_n(data_.get(), size(), value); }

  MatrixView<T> view() { return {data_.get(), rows_, cols_}; }
  MatrixView<const T> view() const { return {data_.get(), rows_, cols_}; }
  operator MatrixView<T>() { return view(); }
  operator MatrixView<const T>() const { return view(); }
  Matrix Clone() const {
    Matrix copy(rows_, cols_);
    std::copy_n(data_.get(), size(), copy.data());
    return copy;
  }

 private:
  struct Free {
    void operator()(T* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<T, Free> data_;
  size_t rows_ = 0;
  size_t cols_ = 0;
};

}  // namespace mica
