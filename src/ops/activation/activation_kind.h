// Which activations the gated MLP may have.
#pragma once

namespace mica {

// f of f(gate) up, both of the form g sigmoid(a(g)): SiLU, a(g) = g (SwiGLU); the tanh form of GELU, a(g) = 2
// sqrt(2 / pi) (g + 0.044715 g^3) (GeGLU; Hendrycks & Gimpel 2016).
enum class Activation { kSilu, kGeluTanh };

}  // namespace mica
