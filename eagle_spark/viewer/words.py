"""User interface strings in English and Spanish; a dataclass, so that both define all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eagle_spark.errors import REASON_MEANINGS, Reason

IMAGE_REASONS = (
    Reason.EMPTY_FILE,
    Reason.UNREADABLE,
    Reason.FILE_TOO_LARGE,
    Reason.NOT_AN_IMAGE,
    Reason.TRUNCATED,
    Reason.CORRUPT,
    Reason.TOO_MANY_PIXELS,
    Reason.TOO_SMALL,
    Reason.MULTIPLE_FRAMES,
    Reason.NOT_A_CHEST_XRAY,
    Reason.COLOUR,
    Reason.NO_CONTRAST,
    Reason.NO_DECODER,
)
"""Reasons for the rejection of a single image: those that the viewer can show."""


@dataclass(frozen=True)
class Strings:
    """The strings of one language; `str.format` fills in each `{}`.

    Attributes:
        code: ISO 639-1 code.
        language_name: the language's name for itself.
        decimal_separator: between the integer and the fractional part of a number.
        review_reasons: flag of the column `review_reasons` -> text.
        rejection_reasons: reason for the rejection of a file -> text.
    """

    code: str
    language_name: str
    decimal_separator: str

    file_menu: str
    open_images: str
    open_folder: str
    open_model: str
    save_overlay: str
    save_result: str
    quit: str
    view_menu: str
    next_image: str
    previous_image: str
    reset_window: str
    show_lungs: str
    language_menu: str
    help_menu: str
    about: str
    about_text: str
    image_files: str
    all_files: str
    png_files: str
    json_files: str
    look_in: str
    file_type: str

    drop_images: str
    no_model: str
    loading_model: str
    processing: str
    image_error: str
    model_error: str
    no_images: str
    open_error: str
    saved: str
    save_failed: str

    confidence: str
    needs_review: str
    no_review_flags: str
    class_probabilities: str
    lungs: str
    lung_area: str
    lung_sides: str
    opacity: str
    window: str
    window_values: str
    reset: str
    model: str
    test_set: str
    no_test_metrics: str
    accuracy: str
    dice: str
    calibration_error: str
    confidence_interval: str
    verified_engine: str
    image: str
    image_size: str
    timing: str
    memory: str
    position: str
    research_notice: str

    review_reasons: Mapping[str, str]
    rejection_reasons: Mapping[Reason, str]

    def format_number(self, value: float, digits: int) -> str:
        return f"{value:.{digits}f}".replace(".", self.decimal_separator)

    def format_percent(self, fraction: float) -> str:
        return f"{self.format_number(100 * fraction, 1)} %"

    def format_probability(self, probability: float) -> str:
        """Return a percentage; values that would round to 0 or 100 % become `<` and `>` bounds."""
        if probability > 0.999:
            return f"> {self.format_percent(0.999)}"
        if probability < 0.001:
            return f"< {self.format_percent(0.001)}"
        return self.format_percent(probability)


ENGLISH = Strings(
    code="en",
    language_name="English",
    decimal_separator=".",
    file_menu="&File",
    open_images="Open &images…",
    open_folder="Open &folder…",
    open_model="Open &model…",
    save_overlay="Save &overlay as PNG…",
    save_result="Save &result as JSON…",
    quit="&Quit",
    view_menu="&View",
    next_image="&Next image",
    previous_image="&Previous image",
    reset_window="&Reset window/level",
    show_lungs="Show &lung mask",
    language_menu="&Language",
    help_menu="&Help",
    about="&About",
    about_text=(
        "<h3>eagle-view {}</h3>"
        "<p><b>Research use only.</b> Not a medical device; not for diagnosis or treatment of "
        "patients. The model assigns one of its classes to every image and does not detect any "
        "other disease.</p>"
        "<p>→ or Page Down: next image. ← or Page Up: previous image.<br>"
        "Drag on the image: vertically to change the window level, horizontally to change the "
        "window width. Double-click: full grey range.<br>"
        "L: show or hide the lung mask.</p>"
    ),
    image_files="X-ray images",
    all_files="All files",
    png_files="PNG images",
    json_files="JSON files",
    look_in="Look in:",
    file_type="Files of type:",
    drop_images="Drop an X-ray or a folder here",
    no_model="Select a model folder: File > Open model",
    loading_model="Loading model…",
    processing="Processing…",
    image_error="Image cannot be processed",
    model_error="Model cannot be loaded",
    no_images="No images in {}",
    open_error="File or folder cannot be opened",
    saved="Saved: {}",
    save_failed="Save failed: {}",
    confidence="Confidence: {}",
    needs_review="Needs review",
    no_review_flags="No review flags",
    class_probabilities="Class probabilities",
    lungs="Lungs",
    lung_area="{} of image area",
    lung_sides="left side of image {}, right side {}",
    opacity="Opacity",
    window="Window",
    window_values="level {}, width {}",
    reset="Reset",
    model="Model",
    test_set="{} test images, {} patients",
    no_test_metrics="No test metrics",
    accuracy="Accuracy",
    dice="Dice (lungs)",
    calibration_error="Calibration error",
    confidence_interval="{} (CI {} to {})",
    verified_engine="{}, file integrity verified",
    image="Image",
    image_size="{} x {} pixels",
    timing="Read {} ms, inference {} ms",
    memory="Memory {} MB",
    position="{} of {}",
    research_notice="Research use only. Not a medical device.",
    review_reasons={
        "confidence": "confidence below threshold",
        "novelty": "image differs from the training data",
        "mask": "unusual shape of the lung mask",
        "for_processing": "raw detector image, not suitable for reading",
    },
    rejection_reasons={reason: REASON_MEANINGS[reason] for reason in IMAGE_REASONS},
)

SPANISH = Strings(
    code="es",
    language_name="Español",
    decimal_separator=",",
    file_menu="&Archivo",
    open_images="Abrir &imágenes…",
    open_folder="Abrir &carpeta…",
    open_model="Abrir &modelo…",
    save_overlay="Guardar su&perposición como PNG…",
    save_result="Guardar &resultado como JSON…",
    quit="&Salir",
    view_menu="&Ver",
    next_image="Imagen &siguiente",
    previous_image="Imagen &anterior",
    reset_window="&Restablecer ventana/nivel",
    show_lungs="Mostrar máscara &pulmonar",
    language_menu="&Idioma",
    help_menu="A&yuda",
    about="&Acerca de",
    about_text=(
        "<h3>eagle-view {}</h3>"
        "<p><b>Solo para investigación.</b> No es un producto sanitario; no apto para el "
        "diagnóstico ni el tratamiento de pacientes. El modelo asigna una de sus clases a "
        "cualquier imagen y no detecta ninguna otra enfermedad.</p>"
        "<p>→ o Av Pág: imagen siguiente. ← o Re Pág: imagen anterior.<br>"
        "Arrastrar sobre la imagen: en vertical cambia el nivel de ventana; en horizontal, el "
        "ancho de ventana. Doble clic: escala de grises completa.<br>"
        "L: mostrar u ocultar la máscara pulmonar.</p>"
    ),
    image_files="Radiografías",
    all_files="Todos los archivos",
    png_files="Imágenes PNG",
    json_files="Archivos JSON",
    look_in="Buscar en:",
    file_type="Tipo de archivo:",
    drop_images="Arrastre aquí una radiografía o una carpeta",
    no_model="Seleccione una carpeta de modelo: Archivo > Abrir modelo",
    loading_model="Cargando modelo…",
    processing="Procesando…",
    image_error="No se puede procesar la imagen",
    model_error="No se puede cargar el modelo",
    no_images="No hay imágenes en {}",
    open_error="No se puede abrir el archivo o la carpeta",
    saved="Guardado: {}",
    save_failed="Error al guardar: {}",
    confidence="Confianza: {}",
    needs_review="Requiere revisión",
    no_review_flags="Sin avisos de revisión",
    class_probabilities="Probabilidades por clase",
    lungs="Pulmones",
    lung_area="{} del área de la imagen",
    lung_sides="izquierda de la imagen {}, derecha {}",
    opacity="Opacidad",
    window="Ventana",
    window_values="nivel {}, ancho {}",
    reset="Restablecer",
    model="Modelo",
    test_set="{} imágenes de prueba, {} pacientes",
    no_test_metrics="Sin métricas de prueba",
    accuracy="Exactitud",
    dice="Dice (pulmones)",
    calibration_error="Error de calibración",
    confidence_interval="{} (IC {} a {})",
    verified_engine="{}, integridad verificada",
    image="Imagen",
    image_size="{} x {} píxeles",
    timing="Lectura {} ms, inferencia {} ms",
    memory="Memoria {} MB",
    position="{} de {}",
    research_notice="Solo para investigación. No es un producto sanitario.",
    review_reasons={
        "confidence": "confianza por debajo del umbral",
        "novelty": "la imagen difiere de los datos de entrenamiento",
        "mask": "forma atípica de la máscara pulmonar",
        "for_processing": "imagen sin procesar del detector, no apta para lectura",
    },
    rejection_reasons={
        Reason.EMPTY_FILE: "el archivo está vacío",
        Reason.UNREADABLE: "no se puede leer el archivo",
        Reason.FILE_TOO_LARGE: "el archivo es demasiado grande",
        Reason.NOT_AN_IMAGE: "formato de imagen no compatible",
        Reason.TRUNCATED: "el archivo está incompleto",
        Reason.CORRUPT: "el archivo está dañado",
        Reason.TOO_MANY_PIXELS: "la imagen tiene demasiados píxeles",
        Reason.TOO_SMALL: "la imagen es demasiado pequeña",
        Reason.MULTIPLE_FRAMES: "el archivo contiene varias imágenes",
        Reason.NOT_A_CHEST_XRAY: "la imagen no es una radiografía de tórax",
        Reason.COLOUR: "la imagen es en color",
        Reason.NO_DECODER: "no hay un decodificador instalado para este formato",
        Reason.NO_CONTRAST: "la imagen no tiene contraste",
    },
)

LANGUAGES = {strings.code: strings for strings in (ENGLISH, SPANISH)}


def get_strings(code: str) -> Strings:
    """Return the strings of a locale code such as `es` or `es_MX`; English for other languages."""
    return LANGUAGES.get(code[:2].lower(), ENGLISH)
