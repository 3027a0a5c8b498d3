// An array as the ops see it: a pointer, a shape, and strides in elements. Owns nothing.
#pragma once

#include <cstddef>

namespace unitstride {

constexpr int max_axes = 64;  // NumPy's own limit

// `data` may be unaligned: kernels load and store by bytes. Strides may be negative, and zero in
// inputs.
template <class Data>
struct StridedView {
    Data* data = nullptr;
    int axes = 0;
    const std::ptrdiff_t* shape = nullptr;
    std::ptrdiff_t strides[max_axes];

    explicit operator bool() const noexcept { return data != nullptr; }
};

using InputView = StridedView<const char>;
using OutputView = StridedView<char>;

}  // namespace unitstride
