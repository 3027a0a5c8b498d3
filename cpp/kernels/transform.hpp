// Fourier transforms of many signals side by side: what the kernels of every instruction set offer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unitstride {

// A complex signal for each lane: [points][real, imaginary][lanes], changed in place. `points` is a
// power of two. `turns[log2 n]` are the factors of the passes over n points: for each j below
// n / radix the powers 1 to radix - 1 of exp(-2 pi i j / n), real before imaginary.
struct TransformTask {
    void* data;
    std::ptrdiff_t points;
    const void* const* turns;
};

// data[f] *= spectrum[f]: the same for all lanes, its real parts before its imaginary ones.
struct SpectrumTask {
    void* data;
    const void* spectrum;
    std::ptrdiff_t points;
};

// The lanes of several groups of signals are one after the other, signal l in lane l % lanes of
// group l / lanes; those of x begin at signal -(pieces - 1). In place of the first groups of x:
// y[l] = sum over p below `pieces` of k[p] * x[l - p], for `points` points from the first on.
struct PiecesTask {
    void* x;
    std::ptrdiff_t x_group, x_groups;  // elements from one group to the next, how many groups
    const void* k;
    std::ptrdiff_t k_group;
    std::ptrdiff_t y_groups, points, pieces;
    void* row;  // scratch for the parts of x at one point
};

// Spectra of two real signals out of that of the complex one they make, for each lane, and their
// product in place of it: `opposite[f]` is where the frequency is that is opposite to the one at f.
struct OwnProductTask {
    void* data;
    const std::int32_t* opposite;
    std::ptrdiff_t points;
};

// The parts of the lanes' signals, [2][lanes] of them, and powers of two near their largest
// magnitudes (1 where there is none).
struct MagnitudeTask {
    void* data;
    std::ptrdiff_t points;
    double* magnitudes;
};
struct FinishTask {
    void* data;
    std::ptrdiff_t points;
    const double* magnitudes;  // or null: 1
};

// The largest finite magnitude of each segment of a line: `segment` elements, the last one fewer.
struct PeaksTask {
    const void* data;
    std::ptrdiff_t count, segment;
    double* peaks;
};

struct TransformKernels {
    std::ptrdiff_t radix;
    // Forward to a shuffled order of frequencies; inverse from it, without the factor 1 / points.
    void (*forward)(const TransformTask&) noexcept;
    void (*inverse)(const TransformTask&) noexcept;
    void (*multiply)(const SpectrumTask&) noexcept;
    void (*multiply_pieces)(const PiecesTask&) noexcept;
    void (*multiply_own)(const OwnProductTask&) noexcept;
    // Divides all parts by their magnitudes, which it finds.
    void (*balance)(const MagnitudeTask&) noexcept;
    // Multiplies them by the magnitudes and by 1 / points; whether all results are finite.
    bool (*finish)(const FinishTask&) noexcept;
    void (*peaks)(const PeaksTask&) noexcept;
};

}  // namespace unitstride
