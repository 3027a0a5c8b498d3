// The signals of a convolution by Fourier transforms on their way between arrays and lanes.
#pragma once

#include <vector>

#include "core/layout.hpp"
#include "kernels/table.hpp"
#include "ops/convolution_fft.hpp"
#include "ops/transform_plan.hpp"

namespace unitstride {

// Signals in neighbouring lanes, numbered along a line, and on from line to line where the form
// takes several together.
//
// Note [Two real blocks]: a real kernel does not mix the real and the imaginary part of a signal,
// so that a complex transform serves two blocks: the n-th of a line and the n-th of its second
// half. Rounding does mix them: parts that come from different lines, or from a line and a kernel,
// are first brought to the same magnitude, by powers of two.
struct Signals {
    std::ptrdiff_t line, first, count;
};

// Those of them that one distance in each array takes to the next.
struct SignalRun {
    std::ptrdiff_t lane, count, block;
    std::ptrdiff_t offset[max_operands], step[max_operands];  // elements; of the line, of lanes
    bool across;  // the only blocks of lines; else neighbouring blocks of one
};

// Pieces of a kernel one after the other, `count` taps each, in lanes from `lane` on.
struct TapLanes {
    std::ptrdiff_t kernel, first, count, pieces, lane;
};

// A workspace holds the signals of a group, [points][real, imaginary][lanes], and room for a line.
class SignalMover {
  public:
    explicit SignalMover(const TransformArguments& arguments);

    void set_plan(const TransformPlan& plan);
    std::ptrdiff_t signal_bytes() const noexcept;     // of a group
    std::ptrdiff_t workspace_bytes() const noexcept;  // of a group, and of a line
    char* part_of(char* workspace, int part) const noexcept {
        return workspace + part * lanes * compute;
    }

    // Lines that share a kernel come one after the other.
    std::ptrdiff_t kernel_of(std::ptrdiff_t line) const noexcept {
        return kernel_of_.empty() ? 0 : kernel_of_[static_cast<std::size_t>(line)];
    }
    std::ptrdiff_t kernels() const noexcept {
        return static_cast<std::ptrdiff_t>(kernel_offset_.size());
    }

    // Signals of a line, and whether parts are from different lines.
    std::ptrdiff_t signals() const noexcept { return signals_; }
    // Whether some lanes are left as they are: those of no signal, or of zeros only.
    bool reaches_beyond(const Signals& signals, int part) const noexcept;
    bool is_across() const noexcept { return across_; }
    // All signals that are numbered together.
    std::ptrdiff_t numbered() const noexcept {
        return several_ ? lines.lines * signals_ : signals_;
    }

    // One part of the windows of signals into lanes that are zero where `reaches_beyond` says so.
    // `scratch` has room for a window.
    void load(const Signals& signals, int part, char* workspace, char* scratch) const;
    // The whole kernels of lines into the imaginary parts.
    void load_own_taps(const Signals& signals, char* workspace) const;
    // What is right of them, to the places of the result.
    void store(const Signals& signals, int part, char* workspace) const;
    // Into lanes that are zero.
    void load_taps(const TapLanes& from, int part, char* workspace) const;

    const TransformArguments& arguments;
    const ConvolutionArguments& call;
    const KernelTable& table;
    const PackKernels& pack;
    const PackKernels& move;  // of the compute type
    LinesPlan lines;
    std::ptrdiff_t lanes, storage, compute;  // bytes of elements
    std::ptrdiff_t length, taps, outputs;
    bool is_real, one_kernel = true;

  private:
    enum Operand { operand_x, operand_out, operand_k, operand_count };

    void number_kernels();
    void fetch(std::ptrdiff_t begin, const char* line, char* target, char* scratch) const;
    void load_across(const SignalRun& run, const char* line, char* target, char* scratch) const;
    void pack_lanes(const char* from, std::ptrdiff_t stride, std::ptrdiff_t lane_stride,
                    std::ptrdiff_t rows, std::ptrdiff_t count, char* target) const;
    void unpack_lanes(char* to, std::ptrdiff_t lane_stride, std::ptrdiff_t rows,
                      std::ptrdiff_t count, char* source) const;
    template <class Body>
    void for_each_run(const Signals& signals, int part, Body&& body) const;

    TransformPlan plan_{};
    std::ptrdiff_t signals_ = 0;
    bool several_ = false, across_ = false;
    std::ptrdiff_t x_stride_, k_stride_, out_stride_;
    std::vector<std::ptrdiff_t> order_, kernel_of_;  // of lines; the latter in that order
    std::vector<std::ptrdiff_t> kernel_offset_;      // in elements
};

}  // namespace unitstride
