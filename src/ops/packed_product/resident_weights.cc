#include "ops/packed_product/resident_weights.h"

#include <utility>

#include "base/error.h"
#include "ops/packed_product/trellis_form.h"
#include "ops/packed_product/value_forms.h"

namespace mica {

ResidentWeights ResidentWeights::OfParts(const AnyParts& parts, Device device) {
  const EntropyParts* entropy = std::get_if<EntropyParts>(&parts);
  if (entropy != nullptr && !device.is_cuda() && HasTrellisForm(*entropy))
    return ResidentWeights(TrellisForm(*entropy));
  return std::visit(
      [&](const auto& of_coding) {
        Array values(of_coding.rows, of_coding.cols, device.is_cuda() ? DType::kBF16 : DType::kF32, device);
        Decode(of_coding, 0, values.view());
        return OfValues(std::move(values));
      },
      parts);
}

ResidentWeights ResidentWeights::OfValues(Array values) {
  return ResidentWeights(PlainForm(std::move(values)));
}

ResidentWeights ResidentWeights::OfRows(size_t outputs, size_t inputs, size_t bytes, RowReader rows) {
  return ResidentWeights(RowsForm(outputs, inputs, bytes, std::move(rows)));
}

void MultiplyResident(ConstTensor x, std::span<const ResidentProduct> products) {
  for (const ResidentProduct& product : products) product.weights->form().Multiply(x, product.bias, product.y);
}

}  // namespace mica
