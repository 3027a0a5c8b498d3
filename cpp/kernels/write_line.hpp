// A contiguous line of results, vector by vector.
#pragma once

#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// out[i] = result(i) by vectors, past the caches if `streaming`; `result(i, count)` gives `count` elements from i.
template <class S, class Result>
inline void write_line(S* out, size length, bool streaming, const Result& result) noexcept {
    constexpr size width = lanes<Compute<S>>;
    size i = 0;
    const auto misplaced = reinterpret_cast<std::uintptr_t>(out) % stored_vector_bytes<S>;
    if (streaming && length > 4 * width && misplaced % sizeof(S) == 0) {
        if (misplaced != 0) {
            i = static_cast<size>((stored_vector_bytes<S> - misplaced) / sizeof(S));
            store_first_as(out, result(0, i), i);
        }
        for (; i + width <= length; i += width) store_streaming_as(out + i, result(i, width));
    } else {
        for (; i + width <= length; i += width) store_as(out + i, result(i, width));
    }
    if (i < length) store_first_as(out + i, result(i, length - i), length - i);
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
