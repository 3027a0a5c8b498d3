// Arrays of any layout, in memory that ends where their elements end.
#pragma once

#include <cstddef>
#include <vector>

#include "core/view.hpp"

namespace unitstride::test {

using Bytes = std::vector<char>;
using Shape = std::vector<std::ptrdiff_t>;

// Where the memory lies. AddressSanitizer knows the bounds of a heap block to the byte. What it
// does not instrument (masked loads, stores past the caches) runs into the page without access that
// follows or precedes the block.
enum class Place { heap, before_guard, after_guard };

// `order` lists the axes from the outermost to the innermost. Along an axis of step 1 or -1 the
// elements are as close as the axes inside allow, forwards or backwards; larger steps leave gaps,
// step 0 repeats one element.
struct Layout {
    std::vector<int> order;
    std::vector<std::ptrdiff_t> step;
    bool misaligned = false;  // by one byte
    Place place = Place::heap;
};
Layout contiguous(int axes);

class Memory {
  public:
    Memory(std::ptrdiff_t bytes, Place place);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    char* data() const noexcept { return data_; }

  private:
    char* data_;
    void* mapped_ = nullptr;
    std::size_t mapped_bytes_ = 0;
};

class StridedArray {
  public:
    StridedArray(std::ptrdiff_t element_bytes, const Shape& shape, const Layout& layout);

    // All elements in logical (C) order.
    void assign(const Bytes& elements);
    Bytes elements() const;
    // Whether the bytes between the elements are as they were.
    bool gaps_are_intact() const;

    template <class View>
    void fill_view(View& view, const Shape& shape) const {
        view.data = data_;
        view.axes = static_cast<int>(shape.size());
        view.shape = shape.data();
        for (std::size_t axis = 0; axis < shape.size(); ++axis) view.strides[axis] = strides_[axis];
    }

  private:
    // Calls body(address) for every element in logical order.
    template <class Body>
    void for_each(const Body& body) const;

    std::ptrdiff_t element_bytes_;
    Shape shape_;
    std::vector<std::ptrdiff_t> strides_;  // in elements; 0 where the length is 1
    std::ptrdiff_t span_bytes_;
    Memory memory_;
    char* first_;  // lowest address of an element
    char* data_;
};

}  // namespace unitstride::test
