// Products of planes that lie side by side with packed panels, for convolutions with channels.
//
// Note [Windows in place]. A register tile takes neighbouring elements of a line as its rows, and a
// packed panel as its columns, as a product of matrices does; where the neighbours begin is looked
// up for every step. For results the steps are the taps of all channels, the neighbours are those
// that neighbouring results meet, and the columns are kernels. For the gradients of taps the steps
// are results, and the neighbours are channels. So no window is ever copied.
#pragma once

#include <cstddef>

namespace unitstride {

// sums[place][column] (+)= sum over steps k of lines[begin + place + step[k]] * panel[k][column],
// for the places of `rows` rows, each of `length` neighbours from begin = row * pitch on.
struct NeighboursTask {
    const void* lines;
    std::ptrdiff_t rows, length, pitch;
    const std::ptrdiff_t* step;  // [depth]
    std::ptrdiff_t depth;
    const void* panel;       // [depth][columns]
    std::ptrdiff_t columns;  // in use, of the panel's
    void* sums;              // [rows * length][columns of a panel]
    bool begun;              // added to what is there; else
    const void* first;       // to these, [columns of a panel]; null: zeros
};

struct NeighbourKernels {
    std::ptrdiff_t columns;  // of a panel
    std::ptrdiff_t rows;     // most neighbours that are taken at a time
    std::ptrdiff_t depth;    // most steps that are summed before they are added
    void (*multiply)(const NeighboursTask&) noexcept;
};

}  // namespace unitstride
