// What a call reports of floating-point events: NumPy's numbers (NPY_FPE_*).
#pragma once

namespace unitstride {

enum FloatStatus : unsigned { status_divide = 1, status_over = 2, status_invalid = 8 };

}  // namespace unitstride
