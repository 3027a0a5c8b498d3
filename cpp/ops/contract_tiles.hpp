// Contractions that memory limits, in any layout and type.
//
// Tiles of the operands are brought to contiguous rows (`kernels/fetch.hpp`): transposed, widened,
// picked out, whatever it takes; kernels for contiguous rows then do the arithmetic, and the result
// goes to its place the same way. What is contiguous already is read where it lies.
#pragma once

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/contract_stream.hpp"

namespace unitstride {

// Rows of one operand that kernels can read: strides in elements of the product.
struct TileRows {
    const void* data;
    std::ptrdiff_t row, column;  // column: 1 or 0
};

struct TileFactors {
    double alpha, beta, alpha_imag, beta_imag;
    bool is_real() const noexcept { return alpha_imag == 0 && beta_imag == 0; }
};

class Tiles {
  public:
    explicit Tiles(const ContractPlan& plan);

  protected:
    // By parts: pairs in c and a, and one factor for both parts of a pair in b.
    enum class Product { real, by_parts, complex };

    // An operand's rows for a tile that begins at `from`; `full`: constants are spread over the
    // row.
    TileRows rows_of(int operand, const char* from, std::ptrdiff_t row_stride,
                     std::ptrdiff_t column_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                     bool full, char* scratch) const;

    // c = alpha * a * b + beta * c for rows that lie in compute form.
    void multiply(Product product, TileRows a, TileRows b, void* c, std::ptrdiff_t c_row,
                  std::ptrdiff_t rows, std::ptrdiff_t columns, const TileFactors& factors,
                  bool streaming) const;

    // The same for the output, wherever it lies.
    void emit(Product product, TileRows a, TileRows b, char* c, std::ptrdiff_t row_stride,
              std::ptrdiff_t column_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
              const TileFactors& factors, bool streaming, char* scratch) const;

    const char* at(int operand, const Place& place) const {
        const char* const data = operand == operand_c ? plan_.c : data_[operand];
        return data + place.offset[operand] * bytes_[operand];
    }
    bool is_double() const noexcept { return real_bytes_ == 8; }
    // Bytes of an element of the product, and its real numbers.
    std::ptrdiff_t product_bytes() const noexcept { return parts() * real_bytes_; }
    std::ptrdiff_t parts() const noexcept { return product_ == Product::real ? 1 : 2; }
    const ContractPlan& plan_;
    AxisList kept_, depth_;
    const char* data_[2];
    Element kind_[contract_operands];
    std::ptrdiff_t bytes_[contract_operands];
    std::ptrdiff_t real_bytes_;
    Product product_ = Product::real;

  private:
    void find_parts();
};

// The axis along which an operand is contiguous, if it steps far along `other`; -1: none.
int crossing_axis(const AxisList& axes, int operand, std::ptrdiff_t step_along_other);

// Of plans that `can_be_streamed`: nothing is summed, something is.
unsigned map_tiles(const ContractPlan& plan);
unsigned sum_tiles(const ContractPlan& plan);

}  // namespace unitstride
