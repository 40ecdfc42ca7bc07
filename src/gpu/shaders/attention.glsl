// How segments of attention are joined (compute/cpu/attention.h): running maxima, sums and mixed values.

const uint kPositions = 504;  // of a segment

// Of a row that has seen nothing.
const uint kNothingSeen = 0xff61b1e6u;  // -3e38

struct Joined {
  float maximum, sum;
  float old_part, new_part;  // what mixed values so far and those of the segment count
};

Joined join(float maximum, float sum, float of_segment, float sum_of_segment) {
  Joined joined;
  joined.maximum = of_segment > maximum ? of_segment : maximum;
  joined.old_part = exact_exp(sub(maximum, joined.maximum));
  joined.new_part = exact_exp(sub(of_segment, joined.maximum));
  joined.sum = add(mul(sum, joined.old_part), mul(sum_of_segment, joined.new_part));
  return joined;
}

float joined_value(float so_far, float of_segment, Joined by) {
  return add(exact_product(of_segment, by.new_part), exact_product(so_far, by.old_part));
}

float finished(float mixed, float whole, float open) {
  return exact_product(mul(mixed, whole), open);
}
