// Convolution by Fourier transforms of blocks (Note [Overlap-save]), a block in each lane of a
// vector. The kernel is real as a rule, so that two real blocks go as one complex signal: its real
// and imaginary parts do not mix. What is worked on at a time is a group: the signals of one
// vector's lanes, transformed, multiplied and transformed back while they are in a core's cache.
#include "ops/convolution_fft.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/convolution_blocks.hpp"
#include "ops/lines.hpp"
#include "ops/transform_turns.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t spectra_bytes = 64 << 20;  // what is kept of several lines at a time
constexpr int most_lanes = 16;
constexpr std::ptrdiff_t points_at_once = 64;  // whose pieces are multiplied by one thread

std::ptrdiff_t parts(std::ptrdiff_t whole, std::ptrdiff_t part) {
    return (whole + part - 1) / part;
}

class TransformConvolution {
  public:
    explicit TransformConvolution(const TransformArguments& arguments);

    int run();
    void write_spectrum(char* spectrum);

  private:
    std::ptrdiff_t carve(char* memory);
    Signals signals_of(std::ptrdiff_t line, std::ptrdiff_t group, std::ptrdiff_t before,
                       int part) const;
    template <class Body>
    void in_parallel(std::ptrdiff_t items, Body&& body);

    void load_group(std::ptrdiff_t line, std::ptrdiff_t group, std::ptrdiff_t before, char* signals,
                    char* scratch) const;
    void finish_group(std::ptrdiff_t line, std::ptrdiff_t group, char* signals,
                      const double* magnitudes);

    // One that the caller has, if the plan is that of its length.
    const char* given_spectrum() const noexcept {
        const bool fits = plan_.logarithm == mover_.arguments.logarithm;
        return fits ? mover_.arguments.spectrum : nullptr;
    }
    void load_taps(const TapLanes& from, char* workspace) const;
    void transform_kernels(std::ptrdiff_t group, char* workspace) const;
    void run_blocks(std::ptrdiff_t line, std::ptrdiff_t group, char* workspace);

    void transform_pieces(std::ptrdiff_t kernel, std::ptrdiff_t group) const;
    void multiply_pieces(std::ptrdiff_t line, std::ptrdiff_t chunk, char* row) const;
    char* group_of(std::ptrdiff_t line, std::ptrdiff_t group) const {
        return spectra_ + ((line - first_line_) * forward_groups_ + group) * group_bytes_;
    }
    void run_pieces(std::ptrdiff_t count);

    void run_whole_lines(std::ptrdiff_t group, char* workspace);

    SignalMover mover_;
    TransformPlan plan_;
    Turns turns_;
    const TransformKernels& kernels_;
    std::ptrdiff_t group_bytes_, lanes_;
    std::ptrdiff_t forward_groups_ = 0, groups_ = 0;  // of a line, or of all of them
    std::ptrdiff_t kernel_groups_ = 0;                // of pieces, for each kernel
    std::ptrdiff_t batch_ = 1;                        // lines whose spectra are kept together
    std::ptrdiff_t first_line_ = 0, first_kernel_ = 0, kernel_count_ = 1;  // of a batch
    char *workspaces_ = nullptr, *spectra_ = nullptr, *kernel_spectra_ = nullptr;
    std::ptrdiff_t workspace_bytes_ = 0;
    std::atomic<bool> finite_{true};
    unsigned raised_ = 0;
    int workers_;
};

TransformPlan plan_of(SignalMover& mover) {
    const ConvolutionArguments& call = mover.call;
    const TransformShape shape = {
        mover.lines.lines, mover.kernels(),         mover.length,  mover.taps,
        call.start,        mover.outputs,           mover.is_real, call.boundary == Boundary::zero,
        mover.lanes,       mover.table.vector_bytes};
    const int given = mover.arguments.logarithm;
    TransformPlan plan = given > 0 ? plan_blocks(shape, given) : plan_transform(shape);
    if (mover.arguments.spectrum != nullptr) {
        const TransformPlan other = plan_transform(shape);
        if (other.nanoseconds < plan.nanoseconds) plan = other;
    }
    mover.set_plan(plan);
    return plan;
}

TransformConvolution::TransformConvolution(const TransformArguments& arguments)
    : mover_(arguments),
      plan_(plan_of(mover_)),
      turns_(mover_.call.storage, plan_.logarithm),
      kernels_(mover_.table.transform[mover_.call.storage == Storage::float64 ? 1 : 0]),
      group_bytes_(mover_.signal_bytes()),
      lanes_(mover_.lanes),
      workers_(workers_for(plan_.nanoseconds, mover_.lines.lines * plan_.blocks)) {
    const std::ptrdiff_t lines = mover_.lines.lines;
    groups_ = parts(mover_.numbered(), mover_.is_across() ? 2 * lanes_ : lanes_);
    std::ptrdiff_t kept = group_bytes_;  // for a line
    switch (plan_.form) {
        case TransformForm::blocks: kept = group_bytes_ / lanes_; break;
        case TransformForm::pieces:
            forward_groups_ = parts(groups_ * lanes_ + plan_.pieces - 1, lanes_);
            kernel_groups_ = parts(plan_.pieces, lanes_);
            kept = checked_multiply(group_bytes_, forward_groups_ + kernel_groups_);
            break;
        case TransformForm::whole_lines: break;
    }
    batch_ = std::clamp<std::ptrdiff_t>(spectra_bytes / kept, 1, lines);
    if (mover_.one_kernel && plan_.form == TransformForm::blocks) batch_ = lines;
}

// Lays out the memory of the call; returns how much that is.
std::ptrdiff_t TransformConvolution::carve(char* memory) {
    Carver carver(memory);
    const std::ptrdiff_t row = forward_groups_ * 2 * mover_.table.vector_bytes;
    const std::ptrdiff_t kernel_count = mover_.one_kernel ? 1 : batch_;
    const bool has_pieces = plan_.form == TransformForm::pieces;
    workspace_bytes_ = std::max(mover_.workspace_bytes(), row);
    const std::ptrdiff_t spectrum =
        has_pieces ? checked_multiply(group_bytes_, kernel_groups_) : group_bytes_ / lanes_;
    workspaces_ = carver.take<char>(checked_multiply(workspace_bytes_, workers_));
    kernel_spectra_ = carver.take<char>(
        checked_multiply(spectrum, round_up(kernel_count, has_pieces ? 1 : lanes_)));
    spectra_ = carver.take<char>(
        checked_multiply(checked_multiply(group_bytes_, forward_groups_), batch_));
    return carver.used();
}

template <class Body>
void TransformConvolution::in_parallel(std::ptrdiff_t items, Body&& body) {
    const double each = static_cast<double>(plan_.points) * plan_.logarithm;
    const int workers = std::min(workers_, workers_for(each * static_cast<double>(items), items));
    raised_ |=
        parallel_for(workers, items, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            char* const own = workspaces_ + worker.index() * workspace_bytes_;
            for (std::ptrdiff_t item = begin; item < end && worker.proceed(); ++item)
                if (finite_) body(item, own);
        });
}

// The signals in the lanes of a group, `before` earlier, of one part of the numbers.
Signals TransformConvolution::signals_of(std::ptrdiff_t line, std::ptrdiff_t group,
                                         std::ptrdiff_t before, int part) const {
    const std::ptrdiff_t place = mover_.is_across() ? 2 * group + part : group;
    const std::ptrdiff_t first = place * lanes_ - before;
    return {line, first, std::clamp<std::ptrdiff_t>(mover_.numbered() - first, 0, lanes_)};
}

void TransformConvolution::load_group(std::ptrdiff_t line, std::ptrdiff_t group,
                                      std::ptrdiff_t before, char* signals, char* scratch) const {
    const Signals real = signals_of(line, group, before, 0);
    const Signals imaginary = signals_of(line, group, before, 1);
    const bool has_imaginary = mover_.is_real || mover_.arguments.complex_x;
    if (!has_imaginary || mover_.reaches_beyond(real, 0) || mover_.reaches_beyond(imaginary, 1))
        std::memset(signals, 0, static_cast<std::size_t>(group_bytes_));
    mover_.load(real, 0, signals, scratch);
    if (has_imaginary) mover_.load(imaginary, 1, signals, scratch);
}

// `magnitudes` of the lanes' parts: null where they are as they were.
void TransformConvolution::finish_group(std::ptrdiff_t line, std::ptrdiff_t group, char* signals,
                                        const double* magnitudes) {
    kernels_.inverse({signals, plan_.points, turns_.get()});
    if (!kernels_.finish({signals, plan_.points, magnitudes})) {
        finite_ = false;
        return;
    }
    mover_.store(signals_of(line, group, 0, 0), 0, signals);
    if (plan_.form != TransformForm::whole_lines)
        mover_.store(signals_of(line, group, 0, 1), 1, signals);
}

void TransformConvolution::load_taps(const TapLanes& from, char* workspace) const {
    mover_.load_taps(from, 0, workspace);
    if (mover_.arguments.complex_k) mover_.load_taps(from, 1, workspace);
}

// Kernels of the batch in one piece: [kernel][real, imaginary][points].
void TransformConvolution::transform_kernels(std::ptrdiff_t group, char* workspace) const {
    std::memset(workspace, 0, static_cast<std::size_t>(group_bytes_));
    const std::ptrdiff_t first = group * lanes_, points = plan_.points;
    const std::ptrdiff_t count = std::min(lanes_, kernel_count_ - first);
    for (std::ptrdiff_t lane = 0; lane < count; ++lane)
        load_taps({first_kernel_ + first + lane, 0, plan_.taps, 1, lane}, workspace);
    kernels_.forward({workspace, points, turns_.get()});
    for (int part = 0; part < 2; ++part)
        mover_.move.unpack({kernel_spectra_ + (2 * first + part) * points * mover_.compute,
                            mover_.part_of(workspace, part), points, count, 1, 2 * points,
                            2 * lanes_, false});
}

void TransformConvolution::run_blocks(std::ptrdiff_t line, std::ptrdiff_t group, char* workspace) {
    const std::ptrdiff_t kernel = mover_.kernel_of(line) - first_kernel_;
    double magnitudes[2 * most_lanes];
    load_group(line, group, 0, workspace, workspace + group_bytes_);
    if (mover_.is_across()) kernels_.balance({workspace, plan_.points, magnitudes});
    kernels_.forward({workspace, plan_.points, turns_.get()});
    const char* const given = given_spectrum();
    const char* const spectrum =
        given != nullptr ? given : kernel_spectra_ + kernel * (group_bytes_ / lanes_);
    kernels_.multiply({workspace, spectrum, plan_.points});
    finish_group(line, group, workspace, mover_.is_across() ? magnitudes : nullptr);
}

// A group of pieces of one kernel, in its place among the spectra.
void TransformConvolution::transform_pieces(std::ptrdiff_t kernel, std::ptrdiff_t group) const {
    char* const signals = kernel_spectra_ + (kernel * kernel_groups_ + group) * group_bytes_;
    std::memset(signals, 0, static_cast<std::size_t>(group_bytes_));
    const std::ptrdiff_t first = group * lanes_ * plan_.taps, left = mover_.taps - first;
    const std::ptrdiff_t whole = std::min(left / plan_.taps, lanes_), rest = left % plan_.taps;
    if (whole > 0) load_taps({first_kernel_ + kernel, first, plan_.taps, whole, 0}, signals);
    if (whole < lanes_ && rest > 0)
        load_taps({first_kernel_ + kernel, first + whole * plan_.taps, rest, 1, whole}, signals);
    kernels_.forward({signals, plan_.points, turns_.get()});
}

void TransformConvolution::multiply_pieces(std::ptrdiff_t line, std::ptrdiff_t chunk,
                                           char* row) const {
    const std::ptrdiff_t kernel = mover_.kernel_of(line) - first_kernel_;
    const std::ptrdiff_t first = chunk * points_at_once;
    const std::ptrdiff_t place = first * 2 * mover_.table.vector_bytes;
    const std::ptrdiff_t group = group_bytes_ / mover_.compute;
    kernels_.multiply_pieces({group_of(line, 0) + place, group, forward_groups_,
                              kernel_spectra_ + kernel * kernel_groups_ * group_bytes_ + place,
                              group, groups_, std::min(points_at_once, plan_.points - first),
                              plan_.pieces, row});
}

// The lines of a batch, `count` of them.
void TransformConvolution::run_pieces(std::ptrdiff_t count) {
    if (!mover_.one_kernel || first_line_ == 0)
        in_parallel(kernel_count_ * kernel_groups_, [&](std::ptrdiff_t item, char*) {
            transform_pieces(item / kernel_groups_, item % kernel_groups_);
        });
    in_parallel(count * forward_groups_, [&](std::ptrdiff_t item, char* own) {
        const std::ptrdiff_t line = first_line_ + item / forward_groups_;
        char* const signals = group_of(line, item % forward_groups_);
        load_group(line, item % forward_groups_, plan_.pieces - 1, signals, own);
        kernels_.forward({signals, plan_.points, turns_.get()});
    });
    const std::ptrdiff_t chunks = parts(plan_.points, points_at_once);
    in_parallel(count * chunks, [&](std::ptrdiff_t item, char* own) {
        multiply_pieces(first_line_ + item / chunks, item % chunks, own);
    });
    in_parallel(count * groups_, [&](std::ptrdiff_t item, char*) {
        const std::ptrdiff_t line = first_line_ + item / groups_;
        finish_group(line, item % groups_, group_of(line, item % groups_), nullptr);
    });
}

void TransformConvolution::run_whole_lines(std::ptrdiff_t group, char* workspace) {
    const Signals signals = signals_of(0, group, 0, 0);
    std::memset(workspace, 0, static_cast<std::size_t>(group_bytes_));
    mover_.load(signals, 0, workspace, workspace + group_bytes_);
    mover_.load_own_taps(signals, workspace);
    double magnitudes[2 * most_lanes];
    kernels_.balance({workspace, plan_.points, magnitudes});
    for (std::ptrdiff_t lane = 0; lane < lanes_; ++lane)
        magnitudes[lane] *= magnitudes[lanes_ + lane];
    kernels_.forward({workspace, plan_.points, turns_.get()});
    kernels_.multiply_own({workspace, opposite_places(plan_.logarithm), plan_.points});
    finish_group(0, group, workspace, magnitudes);
}

void TransformConvolution::write_spectrum(char* spectrum) {
    const Scratch scratch(group_bytes_, 1);
    kernel_spectra_ = spectrum;
    transform_kernels(0, scratch.of_worker(0));
}

int TransformConvolution::run() {
    const std::ptrdiff_t lines = mover_.lines.lines;
    const Scratch scratch(carve(nullptr), 1);
    carve(scratch.of_worker(0));
    if (plan_.form == TransformForm::whole_lines) {
        opposite_places(plan_.logarithm);
        in_parallel(groups_, [&](std::ptrdiff_t item, char* own) { run_whole_lines(item, own); });
    }
    const bool in_batches = plan_.form != TransformForm::whole_lines;
    for (; in_batches && first_line_ < lines && finite_; first_line_ += batch_) {
        const std::ptrdiff_t count = std::min(batch_, lines - first_line_);
        first_kernel_ = mover_.kernel_of(first_line_);
        kernel_count_ = mover_.kernel_of(first_line_ + count - 1) - first_kernel_ + 1;
        if (plan_.form == TransformForm::pieces) {
            run_pieces(count);
            continue;
        }
        if (given_spectrum() == nullptr)
            in_parallel(parts(kernel_count_, lanes_),
                        [&](std::ptrdiff_t group, char* own) { transform_kernels(group, own); });
        in_parallel(mover_.one_kernel ? groups_ : count * groups_,
                    [&](std::ptrdiff_t item, char* own) {
                        run_blocks(first_line_ + item / groups_, item % groups_, own);
                    });
    }
    if (!finite_) return not_finite;
    return FloatEnvironment::has_overflow(raised_) ? int{status_over} : 0;
}

}  // namespace

int convolve_fft(const TransformArguments& arguments) {
    const ConvolutionArguments& call = arguments.convolution;
    for (int axis = 0; axis < call.out.axes; ++axis)
        if (call.out.shape[axis] == 0) return 0;
    return TransformConvolution(arguments).run();
}

void spectrum_of(const TransformArguments& arguments, int logarithm, char* spectrum) {
    TransformArguments own = arguments;
    own.logarithm = logarithm;
    TransformConvolution(own).write_spectrum(spectrum);
}

double convolve_fft_nanoseconds(std::ptrdiff_t lines, std::ptrdiff_t kernel_count,
                                std::ptrdiff_t length, std::ptrdiff_t taps, std::ptrdiff_t outputs,
                                bool is_complex, Storage storage) {
    const std::ptrdiff_t bytes = kernels().vector_bytes;
    const std::ptrdiff_t start = std::max<std::ptrdiff_t>(length + taps - 1 - outputs, 0) / 2;
    return plan_transform({lines, kernel_count, length, taps, start, outputs, !is_complex, true,
                           bytes / compute_bytes(storage), bytes})
        .nanoseconds;
}

}  // namespace unitstride
