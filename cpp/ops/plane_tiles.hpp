// Parts of planes in scratch, as windows that move over them need them: rows of x extended beyond
// its ends, one after the other, and sorted by phases where results are some elements apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/storage.hpp"
#include "core/view.hpp"
#include "kernels/table.hpp"
#include "ops/boundary.hpp"

namespace unitstride {

// The last two axes of an operand.
struct Plane {
    std::ptrdiff_t rows, columns, row_stride, column_stride;

    template <class View>
    explicit Plane(const View& view)
        : rows(view.shape[view.axes - 2]),
          columns(view.shape[view.axes - 1]),
          row_stride(view.strides[view.axes - 2]),
          column_stride(view.strides[view.axes - 1]) {}
};

// Result (i, j) meets with tap (p, q), counted as the window moves, the element
// begin[0] + step[0] i + spread[0] p, begin[1] + step[1] j + spread[1] q of x.
struct Windows {
    std::ptrdiff_t begin[2], step[2], spread[2], taps[2], results[2];
};

// Results of a plane that are computed at a time.
struct Part {
    std::ptrdiff_t row, rows, column, columns;
};

// Note [Phases]: with a step of s between results, element i of x stands at place i / s of the
// phase i % s. A tap then meets neighbouring elements for neighbouring results, as with a step of
// one, and lies at one distance from the first tap.
class PlaneTiles {
  public:
    // `together` planes are brought at a time, side by side in x. `whole_vectors`: rows are as far
    // apart as vectors that begin at each of them reach. `most_elements`: about as many of a plane
    // are brought at a time (0: as many as the cache takes).
    PlaneTiles(const InputView& x, Storage storage, Boundary boundary, const Windows& windows,
               std::ptrdiff_t together, bool whole_vectors, std::ptrdiff_t most_elements = 0);

    std::ptrdiff_t parts() const noexcept { return row_parts_ * column_parts_; }
    Part part_of(std::ptrdiff_t number) const noexcept;
    const Part& largest() const noexcept { return largest_; }

    // Elements, all of the compute type: from row to row, of one plane, of all that is brought.
    std::ptrdiff_t pitch() const noexcept { return pitch_; }
    std::ptrdiff_t plane() const noexcept { return plane_; }
    std::ptrdiff_t elements() const;
    // Where tap (p, q) finds its element for result (0, 0).
    std::ptrdiff_t place(std::ptrdiff_t p, std::ptrdiff_t q) const noexcept;
    std::vector<std::ptrdiff_t> places(std::ptrdiff_t rows) const;

    // Phases of rows and of columns, the elements from phase to phase, and what a part fills of
    // one.
    std::ptrdiff_t phases(int axis) const noexcept {
        return static_cast<std::ptrdiff_t>(phases_[axis].size());
    }
    std::ptrdiff_t phase() const noexcept { return phase_; }
    std::ptrdiff_t filled(const Part& part) const noexcept {
        return (part.rows + reach_[0]) * pitch_;
    }

    // To be called before the first `fetch` into a tile: what stays there.
    void clear(char* tile) const;
    // `planes` that adjoin, from x on: what a part needs.
    void fetch(const Part& part, const char* x, std::ptrdiff_t planes, char* tile) const;

  private:
    struct Stretch {  // elements of one phase: how many lie before, and in, x
        std::ptrdiff_t first, last, element;
    };

    Stretch stretch_of(int axis, std::ptrdiff_t first_result, std::ptrdiff_t phase,
                       std::ptrdiff_t count) const noexcept;
    void fetch_phase(const Part& part, std::ptrdiff_t row_phase, std::ptrdiff_t column_phase,
                     const char* x, std::ptrdiff_t planes, char* tile) const;
    void fetch_extended(const Part& part, const char* x, char* tile) const;
    void fetch_row(const char* row, std::ptrdiff_t first, std::ptrdiff_t width, char* tile) const;

    const PackKernels& pack_;
    Plane x_;
    Boundary boundary_;
    Windows windows_;
    std::ptrdiff_t storage_, compute_, slack_, together_;
    Part largest_{};
    std::ptrdiff_t row_parts_, column_parts_;
    std::vector<std::ptrdiff_t> phases_[2];  // those that a tap meets
    std::ptrdiff_t reach_[2];                // places that the taps reach in a phase
    std::ptrdiff_t pitch_, phase_, plane_;
    bool keeps_zeros_;
};

}  // namespace unitstride
