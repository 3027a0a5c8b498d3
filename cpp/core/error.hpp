// What goes wrong, in words that name the function, the argument, what was expected and what came.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace unitstride {

class Error : public std::exception {
  public:
    enum class Kind { type, value };

    Error(Kind kind, std::string text) : kind_(kind), text_(std::move(text)) {}
    Kind kind() const noexcept { return kind_; }
    const char* what() const noexcept override { return text_.c_str(); }

  private:
    Kind kind_;
    std::string text_;
};

// Thrown on the calling thread when the interrupt hook asked to stop; whoever set the hook knows
// why.
struct Interrupted {};

}  // namespace unitstride
