import Foundation
import HearthCore

/// A picture of replays of one trace: for each policy the workers and the cold starts over time, all to one scale. SVG,
/// readable on light and dark pages.
public struct ReplayPlot {
  private static let width = 860.0
  private static let panelHeight = 140.0
  private static let margin = (left: 56.0, right: 16.0, top: 34.0, bottom: 30.0)
  private static let workersColor = "#2f6db5"
  private static let coldColor = "#d1495b"
  private static let requestsColor = "#8a8f98"

  private let title: String
  private let runs: [(name: String, report: ReplayReport)]
  private var svg = ""

  /// The text of an SVG file.
  public static func svg(title: String, _ runs: [(name: String, report: ReplayReport)]) -> String {
    var plot = ReplayPlot(title: title, runs: runs)
    plot.draw()
    return plot.svg
  }

  private init(title: String, runs: [(name: String, report: ReplayReport)]) {
    self.title = title
    self.runs = runs
  }

  private var plotWidth: Double { ReplayPlot.width - ReplayPlot.margin.left - ReplayPlot.margin.right }
  private var panelPitch: Double { ReplayPlot.panelHeight + 52 }

  private mutating func draw() {
    let height = ReplayPlot.margin.top + 8 + panelPitch * Double(runs.count) + ReplayPlot.margin.bottom
    svg += """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(number(ReplayPlot.width)) \(number(height))" \
      font-family="system-ui, sans-serif" font-size="12">
      <rect width="100%" height="100%" fill="#ffffff"/>

      """
    text(ReplayPlot.margin.left, 20, title, size: 14, weight: "600")
    legend(y: 40)
    let parts = runs.first?.report.timeline.parts.count ?? 1
    let workersMax = nice(runs.flatMap { run in (0..<parts).map { run.report.timeline.workers(in: $0) } }.max() ?? 1)
    let eventsMax = nice(Double(runs.flatMap { $0.report.timeline.parts.map(\.coldStarts) }.max() ?? 1))
    let requestsMax = Double(runs.first?.report.timeline.parts.map(\.requests).max() ?? 1)
    for (index, run) in runs.enumerated() {
      let top = ReplayPlot.margin.top + 54 + panelPitch * Double(index)
      panel(run.name, run.report, top: top, workersMax: workersMax, eventsMax: eventsMax, requestsMax: requestsMax)
    }
    timeAxis(y: ReplayPlot.margin.top + 54 + panelPitch * Double(runs.count) - 40)
    svg += "</svg>\n"
  }

  private mutating func legend(y: Double) {
    let entries = [
      (ReplayPlot.workersColor, "workers"), (ReplayPlot.coldColor, "cold starts"),
      (ReplayPlot.requestsColor, "requests (own scale)"),
    ]
    var x = ReplayPlot.margin.left
    for (color, label) in entries {
      svg += "<rect x=\"\(number(x))\" y=\"\(number(y - 9))\" width=\"10\" height=\"10\" fill=\"\(color)\"/>\n"
      text(x + 14, y, label)
      x += 24 + Double(label.count) * 6.6
    }
  }

  private mutating func panel(
    _ name: String, _ report: ReplayReport, top: Double, workersMax: Double, eventsMax: Double, requestsMax: Double
  ) {
    let bottom = top + ReplayPlot.panelHeight
    let timeline = report.timeline
    let summary =
      "\(report.cold) cold starts of \(report.requests) requests, "
      + "\(number(report.idleSeconds / 3_600)) worker-hours idle, 1 % wait \(wait(report.wait(quantile: 0.99)))"
    text(ReplayPlot.margin.left, top - 22, name, weight: "600")
    text(ReplayPlot.margin.left, top - 7, summary)
    for share in [0.0, 0.5, 1.0] {
      let y = bottom - share * ReplayPlot.panelHeight
      svg +=
        "<line x1=\"\(number(ReplayPlot.margin.left))\" x2=\"\(number(ReplayPlot.width - ReplayPlot.margin.right))\" "
        + "y1=\"\(number(y))\" y2=\"\(number(y))\" stroke=\"#e3e5e8\"/>\n"
      text(ReplayPlot.margin.left - 6, y + 4, label(workersMax * share), anchor: "end")
    }
    let step = plotWidth / Double(timeline.parts.count)
    func x(_ part: Int) -> Double { ReplayPlot.margin.left + step * Double(part) }
    func y(_ share: Double) -> Double { bottom - min(1, share) * ReplayPlot.panelHeight }
    var area = "M\(number(x(0))),\(number(bottom))"
    var line = ""
    for part in timeline.parts.indices {
      let workers = y(timeline.workers(in: part) / workersMax)
      area += " L\(number(x(part))),\(number(workers)) L\(number(x(part + 1))),\(number(workers))"
      let requests = y(Double(timeline.parts[part].requests) / max(1, requestsMax) * 0.95)
      line += "\(part == 0 ? "M" : " L")\(number(x(part) + step / 2)),\(number(requests))"
    }
    area += " L\(number(x(timeline.parts.count))),\(number(bottom)) Z"
    svg += "<path d=\"\(area)\" fill=\"\(ReplayPlot.workersColor)\" fill-opacity=\"0.28\" "
    svg += "stroke=\"\(ReplayPlot.workersColor)\" stroke-width=\"1\"/>\n"
    svg += "<path d=\"\(line)\" fill=\"none\" stroke=\"\(ReplayPlot.requestsColor)\" stroke-width=\"0.8\" "
    svg += "stroke-dasharray=\"3 2\"/>\n"
    for part in timeline.parts.indices where timeline.parts[part].coldStarts > 0 {
      let height = max(3, Double(timeline.parts[part].coldStarts) / eventsMax * ReplayPlot.panelHeight)
      svg +=
        "<rect x=\"\(number(x(part)))\" y=\"\(number(bottom - height))\" width=\"\(number(max(1.2, step * 0.7)))\" "
        + "height=\"\(number(height))\" fill=\"\(ReplayPlot.coldColor)\" fill-opacity=\"0.85\"/>\n"
    }
  }

  private mutating func timeAxis(y: Double) {
    guard let length = runs.first?.report.length.seconds, length > 0 else { return }
    let steps = [1.0, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800]
    let step = steps.first { length / $0 <= 10 } ?? 604_800
    for tick in 0...Int(length / step) {
      let seconds = Double(tick) * step
      let x = ReplayPlot.margin.left + plotWidth * seconds / length
      text(x, y + 6, tick == 0 ? "0" : Duration.seconds(Int(seconds)).text, anchor: "middle")
    }
  }

  private mutating func text(
    _ x: Double, _ y: Double, _ content: String, anchor: String = "start", size: Double = 12, weight: String = "400"
  ) {
    let escaped = content.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
    svg +=
      "<text x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\" font-size=\"\(number(size))\" "
      + "font-weight=\"\(weight)\" fill=\"#24292f\">\(escaped)</text>\n"
  }

  private func wait(_ wait: Duration) -> String {
    wait < .milliseconds(50) ? "no time" : "\(number(wait.seconds)) s or more"
  }

  private func label(_ value: Double) -> String { value == value.rounded() ? String(Int(value)) : number(value) }

  private func number(_ value: Double) -> String {
    let tenths = (value * 10).rounded() / 10
    return tenths == tenths.rounded() ? String(Int(tenths)) : String(tenths)
  }

  /// The next larger number of one digit and zeros, or half of one.
  private func nice(_ value: Double) -> Double {
    // The error of a mean must not make the unit ten times as large.
    let unit = pow(10, (log10(max(value, 1)) - 1e-9).rounded(.down))
    return [1, 2, 3, 4, 5, 6, 8, 10].map { $0 * unit }.first { $0 >= value } ?? value
  }
}
