import HearthCore

/// Whose worker it is: one version of one function, or one model of that version.
public struct WorkerOwner: Hashable, Sendable, Comparable {
  public let function: FunctionName
  /// Counts the deploys of a gateway: each version is measured by itself, and one makes room for the next.
  public let version: Int
  /// Nil where the function is not one of many models.
  public let model: ModelName?
  /// Tells a model from one of the same name that was taken away.
  public let incarnation: Int

  public init(function: FunctionName, version: Int = 0, model: ModelName? = nil, incarnation: Int = 0) {
    self.function = function
    self.version = version
    self.model = model
    self.incarnation = incarnation
  }

  /// Whether the other is a version of the same function that takes over.
  public func isSucceeded(by other: WorkerOwner) -> Bool { function == other.function && version < other.version }

  private var modelText: String { model?.rawValue ?? "" }

  public static func < (left: WorkerOwner, right: WorkerOwner) -> Bool {
    (left.function, left.version, left.modelText, left.incarnation)
      < (right.function, right.version, right.modelText, right.incarnation)
  }
}
