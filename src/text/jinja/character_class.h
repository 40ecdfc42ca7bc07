// What Python's str.isalpha(), isdigit() and their kin ask of one character.
//
// By general category, plus the few characters that have the property without the category: the
// superscript two is a digit, the letter-like roman numerals are in a case, CJK has numerals.
//
// Source  the Unicode Character Database: UnicodeData, DerivedCoreProperties (Lowercase,
// Uppercase),
//         DerivedNumericType, Unihan's numeric values; version 14, which CPython 3.11 has.
#pragma once

#include <string>
#include <string_view>

namespace penstock::jinja {

bool is_alpha(char32_t c);    // letters
bool is_decimal(char32_t c);  // digits of a positional system
bool is_digit(char32_t c);    // those and digits set in another way
bool is_numeric(char32_t c);  // those and numerals of any kind
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);      // one character that is a capital and a small letter
bool is_printable(char32_t c);  // repr() shows it as it is

// str.islower(), str.isupper(), str.istitle(): at least one letter in a case, and none in another.
bool is_lower_text(std::string_view text);
bool is_upper_text(std::string_view text);
bool is_title_text(std::string_view text);

}  // namespace penstock::jinja
