#include "exp_lanes.hpp"

#include "simd/exp.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
void exp_lanes_of(const T* x, const T* highest, T* result, T* offset, std::ptrdiff_t count,
                  const ExpConstants<T>& constants) noexcept {
    for (size i = 0; i < count; i += lanes<T>) {
        const LineOrigin<T> origin = line_origin<T>(load(highest + i), constants);
        store(result + i, exp_scaled<T>(load(x + i), origin, constants));
        store(offset + i, origin_offset<T>(origin));
    }
}

}  // namespace

extern const ExpLanesTable exp_lanes;
constinit const ExpLanesTable exp_lanes = {exp_lanes_of<float>, exp_lanes_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
