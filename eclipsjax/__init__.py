"""From height maps to the images of a segmented backscattered-electron detector, differentiable in every number.

The rooms, in the order the data flows:

- `instrument`: what the microscope does to an electron. `Microscope`, `solve_field`, `trace`, `aim`, `acceptance`.
- `specimen`: what the surface emits and what it hides. `Surface`, `horizon`, `sky_view`, emission laws, `synthetic`.
- `imaging`: visible = valid and exposed; then dose, gain, blur, noise. `render`, `record`, sensitivities and bounds.
- `nn`: images straight from normals. `load_pretrained`, `VisionFieldTransformer`, `DeepSimulator`.
- `inverse`: images -> heights. `reconstruct`, its methods (`Refined`, `Supervised`, `ClosedLoop`, `Photometric`);
  normals -> heights: `integrate`, its methods (`Poisson` ... `Auto`), `height_std`.
- `metrology`: heights and normals against the truth. `height_error`, `angular_error`, `step_error`, `facet_error`.
- `io`: images of any microscope in, height maps in and out of files. `read_segments`, `export_height`.
- `report`: pictures and pages. `cli`: the command `eclipsjax`.

Arrays are `[y, x]` or `[segment, y, x]` as the image is seen, azimuths counter-clockwise as seen in the image, units in
the names. Importing this loads JAX and Equinox; solvers, plotting and the rest load where they are used.
"""

from eclipsjax._types import InputError as InputError
from eclipsjax.imaging.blur import GaussianBlur as GaussianBlur, LineDrift as LineDrift, LineJitter as LineJitter
from eclipsjax.imaging.bsesm import flat_signal as flat_signal, render as render
from eclipsjax.imaging.camera import (
    AdditiveNoise as AdditiveNoise,
    Camera as Camera,
    GaussianShot as GaussianShot,
    PoissonShot as PoissonShot,
    Recorded as Recorded,
    SignalToNoise as SignalToNoise,
    exposure as exposure,
    primary_dose as primary_dose,
    record as record,
    record_with_clipping as record_with_clipping,
)
from eclipsjax.imaging.facets import Facets as Facets
from eclipsjax.imaging.fisher import (
    LevelNoise as LevelNoise,
    slope_bound as slope_bound,
    slope_error as slope_error,
    slope_information as slope_information,
    slope_response as slope_response,
)
from eclipsjax.imaging.height_bound import (
    height_bound as height_bound,
    height_covariance as height_covariance,
    height_information as height_information,
)
from eclipsjax.imaging.misreading import (
    misread_slopes as misread_slopes,
    misread_tilt as misread_tilt,
    pair_constant as pair_constant,
)
from eclipsjax.imaging.sensitivity import (
    Forward as Forward,
    Reverse as Reverse,
    derivative_maps as derivative_maps,
    instrument_numbers as instrument_numbers,
)
from eclipsjax.imaging.vision_field import (
    SurfaceStatistics as SurfaceStatistics,
    blocked_beyond as blocked_beyond,
    blocked_beyond_counted as blocked_beyond_counted,
    vision_field_radius_nm as vision_field_radius_nm,
)
from eclipsjax.instrument.acceptance import (
    AcceptanceTable as AcceptanceTable,
    NoField as NoField,
    acceptance as acceptance,
)
from eclipsjax.instrument.aim import aim as aim
from eclipsjax.instrument.calibration_note import (
    CalibrationNote as CalibrationNote,
    load_calibration as load_calibration,
    save_calibrated as save_calibrated,
)
from eclipsjax.instrument.chamber import Cartesian as Cartesian
from eclipsjax.instrument.electrostatics import Axisymmetric as Axisymmetric, solve_field as solve_field
from eclipsjax.instrument.field import UniformField as UniformField
from eclipsjax.instrument.microscope import (
    Beam as Beam,
    Column as Column,
    Detector as Detector,
    Microscope as Microscope,
    Segments as Segments,
)
from eclipsjax.instrument.scope_file import load_microscope as load_microscope, save_microscope as save_microscope
from eclipsjax.instrument.spectrum import Spectrum as Spectrum
from eclipsjax.instrument.trajectories import Flight as Flight, emission_direction as emission_direction, trace as trace
from eclipsjax.inverse.adapted import Adapted as Adapted
from eclipsjax.inverse.calibrate import calibrate as calibrate
from eclipsjax.inverse.calibrate_from_images import calibrate_from_images as calibrate_from_images
from eclipsjax.inverse.calibration import Calibration as Calibration
from eclipsjax.inverse.closed_loop import ClosedLoop as ClosedLoop
from eclipsjax.inverse.frames import Dark as Dark, Flat as Flat, Shape as Shape
from eclipsjax.inverse.height_std import height_std as height_std
from eclipsjax.inverse.integrate import (
    Integration as Integration,
    integrate as integrate,
    integration as integration,
)
from eclipsjax.inverse.integrators.auto import Auto as Auto
from eclipsjax.inverse.integrators.bilateral import Bilateral as Bilateral
from eclipsjax.inverse.integrators.closed_walls import ClosedWalls as ClosedWalls
from eclipsjax.inverse.integrators.despiked import Despiked as Despiked
from eclipsjax.inverse.integrators.dislocations import Dislocated as Dislocated
from eclipsjax.inverse.integrators.harker_oleary import HarkerOLeary as HarkerOLeary
from eclipsjax.inverse.integrators.least_absolute import LeastAbsolute as LeastAbsolute
from eclipsjax.inverse.integrators.mixed_pixels import Unmixed as Unmixed
from eclipsjax.inverse.integrators.paths import PathIntegration as PathIntegration
from eclipsjax.inverse.integrators.poisson import Poisson as Poisson
from eclipsjax.inverse.integrators.robust import Robust as Robust
from eclipsjax.inverse.integrators.spectral import (
    FrankotChellappa as FrankotChellappa,
    SpectralPoisson as SpectralPoisson,
)
from eclipsjax.inverse.integrators.wiener import Wiener as Wiener
from eclipsjax.inverse.measurement import Measurement as Measurement, measure as measure
from eclipsjax.inverse.method import Progress as Progress
from eclipsjax.inverse.moved_parts import (
    AllParts as AllParts,
    Decoder as Decoder,
    InputFeatures as InputFeatures,
    Normalisation as Normalisation,
)
from eclipsjax.inverse.photometric import Slopes as Slopes, photometric_slopes as photometric_slopes
from eclipsjax.inverse.pinn import DepthNet as DepthNet
from eclipsjax.inverse.pipeline import (
    Photometric as Photometric,
    adapted as adapted,
    reconstruct as reconstruct,
    reconstruct_frames as reconstruct_frames,
)
from eclipsjax.inverse.pretrained import load_pretrained as load_pretrained
from eclipsjax.inverse.reconstruction import Outcome as Outcome, Reconstruction as Reconstruction
from eclipsjax.inverse.refine import Refined as Refined
from eclipsjax.inverse.smoothness import EdgePreserving as EdgePreserving
from eclipsjax.inverse.supervised import Supervised as Supervised
from eclipsjax.io.export import (
    export_height as export_height,
    export_normals as export_normals,
    export_profile as export_profile,
)
from eclipsjax.io.heights import read_height as read_height, write_height as write_height
from eclipsjax.io.sem import (
    ImageRecord as ImageRecord,
    SegmentImages as SegmentImages,
    SemImage as SemImage,
    read_segments as read_segments,
    read_sem as read_sem,
)
from eclipsjax.metrology.compare import (
    AngularError as AngularError,
    FacetError as FacetError,
    HeightError as HeightError,
    StepError as StepError,
    angular_error as angular_error,
    facet_error as facet_error,
    height_error as height_error,
    step_error as step_error,
)
from eclipsjax.nn.dsm import DeepSimulator as DeepSimulator
from eclipsjax.nn.unet import NormalNet as NormalNet
from eclipsjax.nn.vft import VisionFieldTransformer as VisionFieldTransformer
from eclipsjax.specimen import synthetic as synthetic
from eclipsjax.specimen.emission import (
    CosinePower as CosinePower,
    ForwardLobe as ForwardLobe,
    Lambertian as Lambertian,
)
from eclipsjax.specimen.horizon import (
    GivenHorizon as GivenHorizon,
    HardHorizon as HardHorizon,
    NoRelief as NoRelief,
    PeakHorizon as PeakHorizon,
    SmoothHorizon as SmoothHorizon,
    horizon as horizon,
    sky_view as sky_view,
)
from eclipsjax.specimen.normals import slopes_of_normals as slopes_of_normals
from eclipsjax.specimen.surface import Surface as Surface
from eclipsjax.specimen.yields import backscatter_yield as backscatter_yield, compound_yield as compound_yield

__version__ = "0.1.0"
