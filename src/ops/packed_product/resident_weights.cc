#include "ops/packed_product/resident_weights.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "ops/linalg/arrange.h"
#include "ops/packed_product/device_forms.h"
#include "ops/packed_product/fixed_form.h"
#include "ops/packed_product/trellis_form.h"
#include "ops/packed_product/value_forms.h"

namespace mica {

ResidentWeights ResidentWeights::OfParts(const AnyParts& parts, Device device) {
  const EntropyParts* entropy = std::get_if<EntropyParts>(&parts);
  if (entropy != nullptr && !device.is_cuda() && HasTrellisForm(*entropy)) {
    std::unique_ptr<const ResidentForm> form = TrellisForm(*entropy);
    if (form != nullptr) return ResidentWeights(std::move(form));
  }
  if (device.is_cuda()) {
    std::unique_ptr<const ResidentForm> form;
    if (const auto* of_entropy = std::get_if<EntropyParts>(&parts)) form = LevelsOnCuda(*of_entropy, device);
    if (const auto* of_fixed = std::get_if<FixedParts>(&parts)) form = FixedOnCuda(*of_fixed, device);
    if (form != nullptr) return ResidentWeights(std::move(form));
  }
  if (const auto* fixed = std::get_if<FixedParts>(&parts); fixed != nullptr && !device.is_cuda()) {
    if (HasFixedLayout(*fixed)) return ResidentWeights(FixedForm(*fixed));
    return OfRows(fixed->rows, fixed->cols, (BitsOf(*fixed).total() + 7) / 8,
                  [own = *fixed](size_t first, MatrixView<float> out) { Decode(own, first, out); });
  }
  return std::visit(
      [&](const auto& of_coding) {
        Array values(of_coding.rows, of_coding.cols, device.is_cuda() ? DType::kBF16 : DType::kF32, device);
        Decode(of_coding, 0, values.view());
        return OfValues(std::move(values));
      },
      parts);
}

ResidentWeights ResidentWeights::OfValues(Array values) {
  if (values.device().is_cuda()) return ResidentWeights(ValuesOnCuda(std::move(values)));
  return ResidentWeights(PlainForm(std::move(values)));
}

ResidentWeights ResidentWeights::OfRows(size_t outputs, size_t inputs, size_t bytes, RowReader rows) {
  return ResidentWeights(RowsForm(outputs, inputs, bytes, std::move(rows)));
}

void MultiplyResident(const ProductInputs& in, std::span<const ResidentProduct> products) {
  in.Check();
  if (in.device().is_cuda()) {
    std::vector<FormProduct> of_forms;
    for (const ResidentProduct& product : products)
      of_forms.push_back({&product.weights->form(), product.bias, product.y, product.added});
    return MultiplyOnCuda(in, of_forms);
  }
  thread_local Array made, sum;
  ConstTensor x = in.x;
  if (in.kind != ProductInputs::Kind::kPlain) {
    made.Resize(in.rows(), in.cols(), DType::kF32);
    in.Write(made.view());
    x = made.view();
  }
  for (const ResidentProduct& product : products) {
    if (product.added == 0) {
      product.weights->form().Multiply(x, product.bias, product.y);
      continue;
    }
    sum.Resize(product.y.rows, product.y.cols, DType::kF32);
    product.weights->form().Multiply(x, product.bias, sum.view());
    ScaleAndAdd(product.y, product.added, sum.view());
    Copy(std::as_const(sum).view(), product.y);
  }
}

}  // namespace mica
