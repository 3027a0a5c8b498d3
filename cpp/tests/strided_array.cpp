#include "strided_array.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

namespace unitstride::test {
namespace {

constexpr char canary = 0x5a;

std::vector<std::ptrdiff_t> strides_of(const Shape& shape, const Layout& layout) {
    std::vector<std::ptrdiff_t> strides(shape.size(), 0);
    std::ptrdiff_t inside = 1;
    for (auto place = layout.order.rbegin(); place != layout.order.rend(); ++place) {
        const auto axis = static_cast<std::size_t>(*place);
        if (shape[axis] <= 1 || layout.step[axis] == 0) continue;
        strides[axis] = inside * layout.step[axis];
        inside = std::abs(strides[axis]) * shape[axis];
    }
    return strides;
}

// Elements from the lowest address to the highest, and how many of them lie below the first one in
// logical order.
struct Extent {
    std::ptrdiff_t elements = 1, below = 0;
    Extent(const Shape& shape, const std::vector<std::ptrdiff_t>& strides) {
        for (std::size_t axis = 0; axis < shape.size(); ++axis) {
            if (shape[axis] == 0) {
                elements = below = 0;
                return;
            }
            const std::ptrdiff_t reach = (shape[axis] - 1) * strides[axis];
            elements += std::abs(reach);
            if (reach < 0) below -= reach;
        }
    }
};

}  // namespace

Layout contiguous(int axes) {
    Layout layout;
    layout.order.resize(static_cast<std::size_t>(axes));
    std::iota(layout.order.begin(), layout.order.end(), 0);
    layout.step.assign(static_cast<std::size_t>(axes), 1);
    return layout;
}

Memory::Memory(std::ptrdiff_t bytes, Place place) {
    const auto size = static_cast<std::size_t>(bytes);
    if (place == Place::heap) {
        data_ = static_cast<char*>(std::malloc(size));
        if (data_ == nullptr) throw std::bad_alloc();
        return;
    }
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t pages = (size + page - 1) / page * page;
    mapped_bytes_ = pages + page;
    mapped_ =
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    char* const begin = static_cast<char*>(mapped_);
    const bool guard_follows = place == Place::before_guard;
    if (mprotect(guard_follows ? begin + pages : begin, page, PROT_NONE) != 0)
        throw std::bad_alloc();
    data_ = guard_follows ? begin + pages - size : begin + page;
}

Memory::~Memory() {
    if (mapped_ != nullptr) {
        munmap(mapped_, mapped_bytes_);
    } else {
        std::free(data_);
    }
}

StridedArray::StridedArray(std::ptrdiff_t element_bytes, const Shape& shape, const Layout& layout)
    : element_bytes_(element_bytes),
      shape_(shape),
      strides_(strides_of(shape, layout)),
      span_bytes_(Extent(shape, strides_).elements * element_bytes),
      memory_(span_bytes_ + (layout.misaligned ? 1 : 0), layout.place) {
    const bool shifts = layout.misaligned && layout.place != Place::before_guard;
    first_ = memory_.data() + (shifts ? 1 : 0);
    data_ = first_ + Extent(shape, strides_).below * element_bytes;
    std::memset(first_, canary, static_cast<std::size_t>(span_bytes_));
}

template <class Body>
void StridedArray::for_each(const Body& body) const {
    if (span_bytes_ == 0) return;
    const auto axes = static_cast<int>(shape_.size());
    std::vector<std::ptrdiff_t> index(shape_.size(), 0);
    char* element = data_;
    for (;;) {
        body(element);
        int axis = axes - 1;
        for (; axis >= 0; --axis) {
            const auto a = static_cast<std::size_t>(axis);
            element += strides_[a] * element_bytes_;
            if (++index[a] < shape_[a]) break;
            element -= shape_[a] * strides_[a] * element_bytes_;
            index[a] = 0;
        }
        if (axis < 0) return;
    }
}

void StridedArray::assign(const Bytes& elements) {
    const char* from = elements.data();
    for_each([&](char* element) {
        std::memcpy(element, from, static_cast<std::size_t>(element_bytes_));
        from += element_bytes_;
    });
}

Bytes StridedArray::elements() const {
    Bytes elements;
    for_each([&](const char* element) {
        elements.insert(elements.end(), element, element + element_bytes_);
    });
    return elements;
}

bool StridedArray::gaps_are_intact() const {
    std::vector<char> is_element(static_cast<std::size_t>(span_bytes_), 0);
    for_each([&](const char* element) {
        std::memset(is_element.data() + (element - first_), 1,
                    static_cast<std::size_t>(element_bytes_));
    });
    for (std::size_t i = 0; i < is_element.size(); ++i)
        if (!is_element[i] && first_[i] != canary) return false;
    return true;
}

}  // namespace unitstride::test
