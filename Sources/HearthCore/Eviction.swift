/// Which idle workers and models make room when memory is needed.
public enum Eviction: String, CaseIterable, Sendable {
  /// Those that have been idle for longest.
  case lru
  /// Those whose reload costs least for the memory they hold, requests counted: GreedyDual-Size-Frequency (Cherkasova,
  /// HP Labs 1998) with counts that decay and outlive evictions.
  case gdsf
}
