extension String {
  /// The text as it may stand in a message: control characters replaced, cut at `limit` characters.
  public func printable(limit: Int) -> String {
    var result = ""
    for (index, character) in unicodeScalars.enumerated() {
      if index == limit { return result + "…" }
      let isControl = character.value < 0x20 || character.value == 0x7F
      result.unicodeScalars.append(isControl ? "\u{FFFD}" : character)
    }
    return result
  }

  /// The candidate a mistyped word most likely meant, or nil when none is close.
  ///
  /// Closeness is the Levenshtein distance, at most a third of the word's length and at least one edit.
  public func nearest(in candidates: some Sequence<String>) -> String? {
    let distanceMax = max(1, count / 3)
    var best: (candidate: String, distance: Int)?
    for candidate in candidates where abs(candidate.count - count) <= distanceMax {
      let distance = editDistance(self, candidate)
      if distance <= distanceMax, distance < best?.distance ?? .max { best = (candidate, distance) }
    }
    return best?.candidate
  }
}

/// The Levenshtein distance between two words: the least number of insertions, deletions and substitutions.
private func editDistance(_ left: String, _ right: String) -> Int {
  let right = Array(right)
  var row = Array(0...right.count)
  for (index, character) in left.enumerated() {
    var diagonal = row[0]
    row[0] = index + 1
    for column in right.indices {
      let substituted = diagonal + (character == right[column] ? 0 : 1)
      diagonal = row[column + 1]
      row[column + 1] = min(substituted, row[column] + 1, row[column + 1] + 1)
    }
  }
  return row[right.count]
}
